//! The writing half of one socket: all frames that wait in its queue go into one flush.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use futures_util::Sink;
use futures_util::stream::SplitSink;
use tokio::time::{Sleep, sleep};

use super::{Ending, Traffic};
use crate::hub::{Next, Outbound};
use crate::ids::Millis;
use crate::protocol::{CloseReason, Flow};
use crate::relay::Relay;

/// How many frames are written before a flush, so that a long queue is not buffered twice.
const BURST: usize = 64;

/// The shortest time in which the runtime has looked at all sockets.
const TURN: Duration = Duration::from_millis(1);

/// Writes one socket's queue. The writer keeps its progress when the future that polls it is dropped.
pub(super) struct Writer<'a> {
    sink: SplitSink<&'a mut WebSocket, Message>,
    relay: &'a Relay,
    unflushed: usize,
    ping: bool,
    /// The next frame may only be written after all input from the client is read.
    waits_for_reader: bool,
    /// Runs until a held frame is due, at this time.
    timer: Option<(Millis, Pin<Box<Sleep>>)>,
    /// Runs while such a frame is due: when it ends the runtime has looked at all sockets since.
    turn: Option<Pin<Box<Sleep>>>,
    written: &'a mut Traffic,
}

impl<'a> Writer<'a> {
    pub(super) fn new(sink: SplitSink<&'a mut WebSocket, Message>, relay: &'a Relay, written: &'a mut Traffic) -> Self {
        Self { sink, relay, unflushed: 0, ping: false, waits_for_reader: false, timer: None, turn: None, written }
    }

    /// Requests a ping before the next frame.
    pub(super) fn ping(&mut self) {
        self.ping = true;
    }

    /// Whether [`Writer::poll`] left a frame out because some input was not read.
    pub(super) fn waits_for_reader(&self) -> bool {
        self.waits_for_reader
    }

    /// Writes the queued frames; ready when the connection ends. `heard_all`: all input from the client has just been
    /// read.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, outbound: &Outbound, heard_all: bool) -> Poll<Ending> {
        outbound.register(cx);
        match self.poll_write(cx, outbound, heard_all) {
            // A client that no longer reads must not keep its socket from being closed.
            Poll::Pending if outbound.closing() == Some(CloseReason::SlowReader) => {
                Poll::Ready(Ending::Ours(CloseReason::SlowReader))
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(reason)) => Poll::Ready(Ending::Ours(reason)),
            Poll::Ready(Err(_)) => Poll::Ready(Ending::Lost),
        }
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        outbound: &Outbound,
        heard_all: bool,
    ) -> Poll<Result<CloseReason, axum::Error>> {
        self.waits_for_reader = false;
        if heard_all {
            self.turn = None;
        }
        loop {
            if self.unflushed >= BURST {
                ready!(self.poll_flush(cx))?;
            }
            ready!(Pin::new(&mut self.sink).poll_ready(cx))?;
            if std::mem::take(&mut self.ping) {
                self.send(Message::Ping(Bytes::new()))?;
                continue;
            }
            match outbound.next(self.relay.local_time(), heard_all) {
                Next::Write(item) => {
                    self.relay.metrics().frame(item.kind, Flow::Out);
                    self.written.count(item.text.len());
                    // The queue holds only UTF-8. If a frame is not UTF-8, the frame is dropped and the client stays.
                    if let Ok(text) = Utf8Bytes::try_from(item.text) {
                        self.send(Message::Text(text))?;
                    }
                }
                Next::Probe(number) => self.send(Message::Ping(Bytes::copy_from_slice(&number.to_be_bytes())))?,
                Next::ReadFirst => {
                    ready!(self.poll_flush(cx))?;
                    // A process that stood still may find a frame due before it knows what has come meanwhile.
                    let turn = self.turn.get_or_insert_with(|| Box::pin(sleep(TURN)));
                    self.waits_for_reader = turn.as_mut().poll(cx).is_ready();
                    return Poll::Pending;
                }
                Next::Wait(until) => {
                    ready!(self.poll_flush(cx))?;
                    ready!(self.poll_timer(cx, until));
                }
                Next::Close(reason) => {
                    ready!(self.poll_flush(cx))?;
                    return Poll::Ready(Ok(reason));
                }
            }
        }
    }

    fn send(&mut self, message: Message) -> Result<(), axum::Error> {
        self.unflushed += 1;
        Pin::new(&mut self.sink).start_send(message)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), axum::Error>> {
        if self.unflushed > 0 {
            ready!(Pin::new(&mut self.sink).poll_flush(cx))?;
            self.unflushed = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when a held frame is due. Without a held frame it stays pending, since the queue wakes the writer.
    fn poll_timer(&mut self, cx: &mut Context<'_>, until: Option<Millis>) -> Poll<()> {
        let Some(until) = until else {
            self.timer = None;
            return Poll::Pending;
        };
        if self.timer.as_ref().is_none_or(|(set, _)| *set != until) {
            let wait = Duration::from_millis(until.saturating_sub(self.relay.local_time()));
            self.timer = Some((until, Box::pin(sleep(wait))));
        }
        let Some((_, timer)) = &mut self.timer else { return Poll::Pending };
        timer.as_mut().poll(cx)
    }
}
