//! The bounded queue of frames that wait for one socket.
//!
//! A reader that keeps up sees every frame. One that does not is first spared what is out of date: above the soft limit
//! a state replaces the unsent ones of the same sender and epoch. Above the hard limit the connection is closed (1013).

use std::collections::VecDeque;
use std::task::Context;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use crate::ids::{ConnectionId, Epoch};
use crate::protocol::{CloseReason, FrameType};

/// How long frames that make a client answer are held back after another has left (docs/protocol.md, "After a leave").
pub const HUSH: Duration = Duration::from_millis(100);

/// Leaves in quick succession extend the hush no further than this.
const LONGEST_HUSH: Duration = Duration::from_millis(500);

/// How much may wait for one socket.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// From here on states are conflated: frames.
    pub soft_frames: usize,
    /// From here on states are conflated: bytes.
    pub soft_bytes: usize,
    /// Above this the socket is closed: frames.
    pub hard_frames: usize,
    /// Above this the socket is closed: bytes.
    pub hard_bytes: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { soft_frames: 1024, soft_bytes: 512 * 1024, hard_frames: 4096, hard_bytes: 2 * 1024 * 1024 }
    }
}

impl QueueLimits {
    /// The usual limits, wide enough for a few frames of the largest size.
    #[must_use]
    pub fn for_frames_of(max_frame_bytes: usize) -> Self {
        let usual = Self::default();
        let soft_bytes = usual.soft_bytes.max(2 * max_frame_bytes);
        Self { soft_bytes, hard_bytes: usual.hard_bytes.max(2 * soft_bytes), ..usual }
    }
}

/// A frame in the queue.
#[derive(Clone, Debug)]
pub struct Item {
    /// The frame, UTF-8.
    pub text: Bytes,
    /// Its type, for the metrics.
    pub kind: FrameType,
    /// Whose state it is, if it is one that a newer one may replace.
    pub state_of: Option<(ConnectionId, Epoch)>,
    /// It waits for the end of a hush, and all behind it with it.
    pub waits: bool,
}

/// What the writer of the socket does next.
#[derive(Debug)]
pub enum Next {
    /// Write this.
    Write(Item),
    /// Nothing before then, unless woken.
    Wait(Option<Instant>),
    /// Everything is written: close.
    Close(CloseReason),
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It waits, and so many older states went for it.
    Queued(usize),
    /// The socket is closing, or was closed by this frame.
    Refused,
}

/// The queue. Pushed to from any task, drained by the connection's own.
#[derive(Debug, Default)]
pub struct Outbound {
    queue: Mutex<Queue>,
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    closing: Option<CloseReason>,
    hush: Option<(Instant, Instant)>,
    conflated: u64,
}

impl Outbound {
    /// Appends a frame.
    pub fn push(&self, item: Item, limits: &QueueLimits) -> Pushed {
        let mut queue = self.queue.lock();
        if queue.closing.is_some() {
            return Pushed::Refused;
        }
        let mut replaced = 0;
        if item.state_of.is_some() && queue.is_over(limits.soft_frames, limits.soft_bytes) {
            replaced = queue.drop_states_of(item.state_of);
            queue.conflated += replaced as u64;
        }
        queue.bytes += item.text.len();
        queue.items.push_back(item);
        let overflow = queue.is_over(limits.hard_frames, limits.hard_bytes);
        if overflow {
            queue.items = VecDeque::new();
            queue.closing = Some(CloseReason::SlowReader);
        }
        drop(queue);
        self.waker.wake();
        if overflow { Pushed::Refused } else { Pushed::Queued(replaced) }
    }

    /// Closes the socket when what waits is written. The first reason stands.
    pub fn close(&self, reason: CloseReason) {
        self.queue.lock().closing.get_or_insert(reason);
        self.waker.wake();
    }

    /// Another client has just left: holds back frames that would make this one answer.
    pub fn hush(&self, now: Instant) {
        let mut queue = self.queue.lock();
        let begun = match queue.hush {
            Some((begun, until)) if until > now => begun,
            _ => now,
        };
        queue.hush = Some((begun, (now + HUSH).min(begun + LONGEST_HUSH)));
    }

    /// The reason this socket is to be closed for, if it is.
    #[must_use]
    pub fn closing(&self) -> Option<CloseReason> {
        self.queue.lock().closing
    }

    /// Bytes that wait, frames that wait.
    #[must_use]
    pub fn depth(&self) -> (usize, usize) {
        let queue = self.queue.lock();
        (queue.bytes, queue.items.len())
    }

    /// How many states were replaced by newer ones so far.
    #[must_use]
    pub fn conflated(&self) -> u64 {
        self.queue.lock().conflated
    }

    /// What to write next.
    pub fn next(&self, now: Instant) -> Next {
        self.queue.lock().next(now)
    }

    /// Has the task of `cx` woken when there is more to do.
    pub fn register(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }
}

impl Queue {
    fn is_over(&self, frames: usize, bytes: usize) -> bool {
        self.items.len() > frames || self.bytes > bytes
    }

    fn drop_states_of(&mut self, source: Option<(ConnectionId, Epoch)>) -> usize {
        let before = self.items.len();
        self.items.retain(|item| item.state_of != source);
        self.bytes = self.items.iter().map(|item| item.text.len()).sum();
        before - self.items.len()
    }

    fn next(&mut self, now: Instant) -> Next {
        let hushed = self.hush.map(|(_, until)| until).filter(|until| *until > now);
        match (self.items.front(), self.closing) {
            (None, Some(reason)) => Next::Close(reason),
            (None, None) => Next::Wait(None),
            // A socket that is closed anyway is not made to answer any more.
            (Some(item), None) if item.waits && hushed.is_some() => Next::Wait(hushed),
            (Some(_), _) => self.pop(),
        }
    }

    fn pop(&mut self) -> Next {
        let Some(item) = self.items.pop_front() else { return Next::Wait(None) };
        self.bytes -= item.text.len();
        // A burst must not hold its memory for as long as the socket stays open.
        if self.items.is_empty() && self.items.capacity() > 16 {
            self.items = VecDeque::new();
        }
        Next::Write(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: QueueLimits = QueueLimits { soft_frames: 4, soft_bytes: 1000, hard_frames: 8, hard_bytes: 2000 };

    fn state(source: u128, text: &'static str) -> Item {
        let state_of = Some((ConnectionId::from_number(source), Epoch(1)));
        Item { text: Bytes::from_static(text.as_bytes()), kind: FrameType::StateUpdate, state_of, waits: false }
    }

    fn control(text: &'static str, waits: bool) -> Item {
        let text = Bytes::from_static(text.as_bytes());
        Item { text, kind: FrameType::AssignSyncDirection, state_of: None, waits }
    }

    fn drain(queue: &Outbound, now: Instant) -> Vec<Bytes> {
        std::iter::from_fn(|| match queue.next(now) {
            Next::Write(item) => Some(item.text),
            Next::Wait(_) | Next::Close(_) => None,
        })
        .collect()
    }

    #[test]
    fn below_the_soft_limit_every_state_arrives() {
        let queue = Outbound::default();
        for text in ["1", "2", "3", "4", "5"] {
            assert_eq!(queue.push(state(1, text), &LIMITS), Pushed::Queued(0));
        }
        assert_eq!(drain(&queue, Instant::now()), ["1", "2", "3", "4", "5"]);
    }

    #[test]
    fn above_it_a_state_replaces_those_of_its_sender_and_stands_last() {
        let queue = Outbound::default();
        for item in [state(1, "a"), state(2, "b"), control("c", false), state(1, "d"), state(1, "e")] {
            queue.push(item, &LIMITS);
        }
        assert_eq!(queue.push(state(1, "f"), &LIMITS), Pushed::Queued(3));
        assert_eq!(queue.conflated(), 3);
        assert_eq!(drain(&queue, Instant::now()), ["b", "c", "f"]);
    }

    #[test]
    fn control_frames_are_never_dropped_and_too_many_close_the_socket() {
        let queue = Outbound::default();
        for _ in 0..8 {
            assert_eq!(queue.push(control("x", false), &LIMITS), Pushed::Queued(0));
        }
        assert_eq!(queue.push(control("x", false), &LIMITS), Pushed::Refused);
        assert!(matches!(queue.next(Instant::now()), Next::Close(CloseReason::SlowReader)));
    }

    #[test]
    fn a_close_comes_after_what_waits() {
        let queue = Outbound::default();
        queue.push(control("last", false), &LIMITS);
        queue.close(CloseReason::Drain);
        assert_eq!(queue.push(control("late", false), &LIMITS), Pushed::Refused);
        assert!(matches!(queue.next(Instant::now()), Next::Write(_)));
        assert!(matches!(queue.next(Instant::now()), Next::Close(CloseReason::Drain)));
    }

    #[test]
    fn in_a_hush_nothing_passes_a_frame_that_waits() {
        let (queue, now) = (Outbound::default(), Instant::now());
        queue.hush(now);
        for item in [control("left", false), control("assign", true), state(1, "after")] {
            queue.push(item, &LIMITS);
        }
        assert_eq!(drain(&queue, now + HUSH / 2), ["left"]);
        assert_eq!(drain(&queue, now + HUSH), ["assign", "after"]);
    }

    #[test]
    fn leaves_in_a_row_cannot_hush_for_ever() {
        let (queue, start) = (Outbound::default(), Instant::now());
        for leave in 0..20 {
            queue.hush(start + leave * HUSH / 2);
        }
        queue.push(control("assign", true), &LIMITS);
        assert_eq!(drain(&queue, start + 20 * HUSH / 2 + HUSH), ["assign"]);
    }
}
