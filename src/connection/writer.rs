//! The way out of one socket: whatever waits in its queue goes into one flush.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use futures_util::Sink;
use futures_util::stream::SplitSink;
use tokio::time::{Sleep, sleep_until};

use super::{End, Traffic};
use crate::hub::{Next, Outbound};
use crate::metrics::Metrics;
use crate::protocol::{CloseReason, Direction};

/// How many frames are written before they are flushed, so that a long queue does not pile up twice.
const BURST: usize = 64;

/// Writes one socket's queue. Its progress survives being polled by a future that is dropped.
pub(super) struct Writer<'a> {
    sink: SplitSink<&'a mut WebSocket, Message>,
    metrics: &'a Metrics,
    unflushed: usize,
    ping: bool,
    hush: Option<Pin<Box<Sleep>>>,
    written: &'a mut Traffic,
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        sink: SplitSink<&'a mut WebSocket, Message>,
        metrics: &'a Metrics,
        written: &'a mut Traffic,
    ) -> Self {
        Self { sink, metrics, unflushed: 0, ping: false, hush: None, written }
    }

    /// Asks for a ping before the next frame.
    pub(super) fn ping(&mut self) {
        self.ping = true;
    }

    /// Writes what is queued and what will be, until the connection is to end.
    pub(super) async fn run(&mut self, outbound: &Outbound) -> End {
        poll_fn(|cx| self.poll(cx, outbound)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, outbound: &Outbound) -> Poll<End> {
        outbound.register(cx);
        match self.poll_write(cx, outbound) {
            // A reader that takes nothing any more must not keep its socket from being closed.
            Poll::Pending if outbound.closing() == Some(CloseReason::SlowReader) => {
                Poll::Ready(End::Ours(CloseReason::SlowReader))
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(reason)) => Poll::Ready(End::Ours(reason)),
            Poll::Ready(Err(_)) => Poll::Ready(End::Lost),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, outbound: &Outbound) -> Poll<Result<CloseReason, axum::Error>> {
        loop {
            if self.unflushed >= BURST {
                ready!(self.poll_flush(cx))?;
            }
            ready!(Pin::new(&mut self.sink).poll_ready(cx))?;
            if std::mem::take(&mut self.ping) {
                self.send(Message::Ping(Bytes::new()))?;
                continue;
            }
            match outbound.next(Instant::now()) {
                Next::Write(item) => {
                    self.metrics.frame(item.kind, Direction::Out);
                    self.written.count(item.text.len());
                    // The queue holds nothing but UTF-8; should it ever, the frame is left out and not the client.
                    if let Ok(text) = Utf8Bytes::try_from(item.text) {
                        self.send(Message::Text(text))?;
                    }
                }
                Next::Wait(until) => {
                    ready!(self.poll_flush(cx))?;
                    ready!(self.poll_hush(cx, until));
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

    /// Ready when a hush is over; never if there is none, since the queue wakes the writer.
    fn poll_hush(&mut self, cx: &mut Context<'_>, until: Option<Instant>) -> Poll<()> {
        let Some(until) = until else {
            self.hush = None;
            return Poll::Pending;
        };
        let until = tokio::time::Instant::from_std(until);
        let hush = self.hush.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if hush.deadline() != until {
            hush.as_mut().reset(until);
        }
        hush.as_mut().poll(cx)
    }
}
