//! The bounded queue of frames for one socket. No lock and no clock: the relay puts both around it.
//!
//! A client that reads fast enough gets every frame. For a slower one, outdated states are dropped first: above the
//! soft limit a state replaces the unsent ones of the same sender and epoch. Above the hard limit the connection is
//! closed (1013).
//!
//! A client without the handshake answers some frames automatically, even after it has sent its close, and that can
//! crash it. Such a frame is held for a moment, and dropped if the close arrives first (docs/protocol.md, "Frames that
//! are held"). States may overtake held frames; all other frames keep their order.

use std::collections::VecDeque;

use crate::dialect::legacy::{ANSWER_HOLD, LEAVE_HOLD, LONGEST_LEAVE_HOLD, is_answered, may_overtake};
use crate::ids::{ConnectionId, Epoch, Millis};
use crate::protocol::{CloseReason, FrameType};
use crate::room::Item;

/// The limits of the queue of one socket.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Above this many frames, states are conflated.
    pub soft_frames: usize,
    /// Above this many bytes, states are conflated.
    pub soft_bytes: usize,
    /// Above this many frames, the socket is closed.
    pub hard_frames: usize,
    /// Above this many bytes, the socket is closed.
    pub hard_bytes: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { soft_frames: 1024, soft_bytes: 512 * 1024, hard_frames: 4096, hard_bytes: 2 * 1024 * 1024 }
    }
}

impl QueueLimits {
    /// The default limits, wide enough for a few frames of the largest size.
    #[must_use]
    pub fn for_frames_of(max_frame_bytes: usize) -> Self {
        let usual = Self::default();
        let soft_bytes = usual.soft_bytes.max(2 * max_frame_bytes);
        Self { soft_bytes, hard_bytes: usual.hard_bytes.max(2 * soft_bytes), ..usual }
    }
}

/// The next step of the socket's writer.
#[derive(Debug)]
pub enum Next {
    /// Write this frame.
    Write(Item),
    /// Send a WebSocket ping with this number, and report its pong.
    Probe(u64),
    /// The next frame makes the client answer: read the client's input first, and ask again.
    ReadFirst,
    /// Write nothing until then, unless woken.
    Wait(Option<Millis>),
    /// Close: everything is written.
    Close(CloseReason),
}

/// The result of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The frame waits in the queue, and replaced this many older states.
    Queued(usize),
    /// The socket is closing, or was closed by this frame.
    Refused,
}

/// A frame or a probe, and the end of its hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Entry {
    content: Content,
    held_until: Option<Millis>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Content {
    Frame(Item),
    Probe(u64),
}

/// The queue. Times are the node's own, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Queue {
    /// The entries that nobody has looked at yet, in the order of pushing.
    entries: VecDeque<Entry>,
    /// The entries that are held, or wait behind a held one. They are older than all in `entries`.
    held: VecDeque<Entry>,
    /// How many of the held frames are `client_connected`.
    held_arrivals: usize,
    bytes: usize,
    closing: Option<CloseReason>,
    /// When the hold after a leave began, and when it ends.
    leave_hold: Option<(Millis, Millis)>,
    conflated: u64,
    /// The client has done the handshake, so nothing is held for it.
    modern: bool,
}

impl Entry {
    fn is_frame(&self, kind: FrameType) -> bool {
        matches!(&self.content, Content::Frame(item) if item.kind == kind)
    }

    fn size(&self) -> usize {
        match &self.content {
            Content::Frame(item) => item.text.len(),
            Content::Probe(_) => 0,
        }
    }
}

impl Queue {
    /// Appends a frame.
    pub fn push(&mut self, item: Item, limits: &QueueLimits, now: Millis) -> Pushed {
        if self.closing.is_some() {
            return Pushed::Refused;
        }
        let mut superseded = 0;
        if item.state_of.is_some() && self.is_over(limits.soft_frames, limits.soft_bytes) {
            superseded = self.drop_states_of(item.state_of);
            self.conflated += superseded as u64;
        }
        self.bytes += item.text.len();
        let held_until = (!self.modern && is_answered(item.kind)).then(|| now + ANSWER_HOLD);
        self.entries.push_back(Entry { content: Content::Frame(item), held_until });
        if self.is_over(limits.hard_frames, limits.hard_bytes) {
            (self.entries, self.held) = (VecDeque::new(), VecDeque::new());
            self.closing = Some(CloseReason::SlowReader);
            return Pushed::Refused;
        }
        Pushed::Queued(superseded)
    }

    /// Removes the unwritten frames of this type. Returns how many there were.
    pub fn withdraw(&mut self, kind: FrameType) -> usize {
        let before = self.len();
        self.held.retain(|entry| !entry.is_frame(kind));
        self.entries.retain(|entry| !entry.is_frame(kind));
        self.count_bytes();
        before - self.len()
    }

    /// Queues a probe: the client's pong to the number proves that it has read everything before it, and is reported.
    pub fn probe(&mut self, number: u64) {
        self.entries.push_back(Entry { content: Content::Probe(number), held_until: None });
    }

    /// Notes that the client has done the handshake: nothing is held for it any more, and frames for a client without
    /// it are dropped.
    pub fn hold_nothing(&mut self) {
        let held = std::mem::take(&mut self.held);
        let entries = held.into_iter().chain(std::mem::take(&mut self.entries));
        self.entries = entries.filter(|entry| !entry.is_frame(FrameType::AcceptControl)).collect();
        self.count_bytes();
        (self.modern, self.held_arrivals) = (true, 0);
    }

    /// Closes the socket when the queued frames are written. The first reason counts.
    pub fn close(&mut self, reason: CloseReason) {
        self.closing.get_or_insert(reason);
    }

    /// Notes that another client has just left: all frames that are not about that leave are held.
    pub fn hold_after_leave(&mut self, now: Millis) {
        let begun = match self.leave_hold {
            Some((begun, until)) if until > now => begun,
            _ => now,
        };
        self.leave_hold = Some((begun, (now + LEAVE_HOLD).min(begun + LONGEST_LEAVE_HOLD)));
    }

    /// The reason for closing the socket, if it is closing.
    #[must_use]
    pub fn closing(&self) -> Option<CloseReason> {
        self.closing
    }

    /// The bytes and the frames that wait.
    #[must_use]
    pub fn depth(&self) -> (usize, usize) {
        (self.bytes, self.len())
    }

    /// How many states were replaced by newer ones so far.
    #[must_use]
    pub fn conflated(&self) -> u64 {
        self.conflated
    }

    fn len(&self) -> usize {
        self.entries.len() + self.held.len()
    }

    fn is_over(&self, frames: usize, bytes: usize) -> bool {
        self.len() > frames || self.bytes > bytes
    }

    fn drop_states_of(&mut self, source: Option<(ConnectionId, Epoch)>) -> usize {
        let before = self.entries.len();
        self.entries.retain(|entry| !matches!(&entry.content, Content::Frame(item) if item.state_of == source));
        self.count_bytes();
        before - self.entries.len()
    }

    fn count_bytes(&mut self) {
        self.bytes = self.held.iter().chain(&self.entries).map(Entry::size).sum();
    }

    /// The writer's next step. `heard_all`: all input from the client has just been read.
    pub fn next(&mut self, now: Millis, heard_all: bool) -> Next {
        loop {
            if let Some(first) = self.held.front()
                && self.held_until(first, now).is_none()
            {
                if let Some(next) = self.write_held(heard_all) {
                    return next;
                }
                continue;
            }
            let Some(entry) = self.entries.pop_front() else { break };
            // The queue must not keep the memory of a burst for as long as the socket stays open.
            if self.entries.is_empty() && self.entries.capacity() > 16 {
                self.entries = VecDeque::new();
            }
            if self.passes(&entry) {
                return self.write(entry);
            }
            self.held_arrivals += usize::from(entry.is_frame(FrameType::ClientConnected));
            self.held.push_back(entry);
        }
        match (self.held.front(), self.closing) {
            (Some(first), _) => Next::Wait(self.held_until(first, now)),
            (None, Some(reason)) => Next::Close(reason),
            (None, None) => Next::Wait(None),
        }
    }

    /// Whether an entry need not wait in line with the held ones. All other entries wait in line, and leave at once if
    /// nothing is held.
    fn passes(&self, entry: &Entry) -> bool {
        match &entry.content {
            Content::Frame(item) if may_overtake(item.kind) => true,
            Content::Frame(item) if item.kind == FrameType::ClientDisconnected => self.held_arrivals == 0,
            Content::Frame(_) | Content::Probe(_) => self.modern,
        }
    }

    /// The end of this entry's hold, if it is held.
    fn held_until(&self, entry: &Entry, now: Millis) -> Option<Millis> {
        if self.closing.is_some() {
            return None;
        }
        let about_the_leave =
            entry.is_frame(FrameType::ClientDisconnected) || entry.is_frame(FrameType::ReleaseControl);
        let after_leave = self.leave_hold.map(|(_, until)| until).filter(|_| !about_the_leave);
        entry.held_until.max(after_leave).filter(|until| *until > now)
    }

    /// Writes the first held entry. Returns `None` if it is dropped, because the socket closes and nobody waits for its
    /// answer.
    fn write_held(&mut self, heard_all: bool) -> Option<Next> {
        let answered = self.held.front()?.held_until.is_some();
        if answered && self.closing.is_none() && !heard_all {
            return Some(Next::ReadFirst);
        }
        let entry = self.held.pop_front()?;
        self.held_arrivals -= usize::from(entry.is_frame(FrameType::ClientConnected));
        if answered && self.closing.is_some() {
            self.bytes -= entry.size();
            return None;
        }
        Some(self.write(entry))
    }

    fn write(&mut self, entry: Entry) -> Next {
        self.bytes -= entry.size();
        match entry.content {
            Content::Frame(item) => Next::Write(item),
            Content::Probe(number) => Next::Probe(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const NOW: Millis = 1_000;
    const LIMITS: QueueLimits = QueueLimits { soft_frames: 4, soft_bytes: 1000, hard_frames: 8, hard_bytes: 2000 };

    fn state(source: u128, text: &'static str) -> Item {
        let state_of = Some((ConnectionId::from_number(source), Epoch(1)));
        Item { state_of, ..frame(FrameType::StateUpdate, text) }
    }

    fn frame(kind: FrameType, text: &'static str) -> Item {
        Item { text: Bytes::from_static(text.as_bytes()), kind, state_of: None }
    }

    fn assign(text: &'static str) -> Item {
        frame(FrameType::AssignSyncDirection, text)
    }

    fn queue_of(items: impl IntoIterator<Item = Item>) -> Queue {
        let mut queue = Queue::default();
        for item in items {
            queue.push(item, &LIMITS, NOW);
        }
        queue
    }

    /// The frames that a connection that has read everything writes now.
    fn drain(queue: &mut Queue, now: Millis) -> Vec<Bytes> {
        std::iter::from_fn(|| match queue.next(now, true) {
            Next::Write(item) => Some(item.text),
            Next::Probe(number) => Some(number.to_string().into()),
            Next::ReadFirst | Next::Wait(_) | Next::Close(_) => None,
        })
        .collect()
    }

    #[test]
    fn below_the_soft_limit_every_state_arrives() {
        let mut queue = queue_of(["1", "2", "3", "4", "5"].map(|text| state(1, text)));
        assert_eq!(queue.conflated(), 0);
        assert_eq!(drain(&mut queue, NOW), ["1", "2", "3", "4", "5"]);
    }

    #[test]
    fn above_the_soft_limit_a_state_replaces_its_senders_older_ones() {
        let mut queue = queue_of([state(1, "a"), state(2, "b"), assign("c"), state(1, "d"), state(1, "e")]);
        assert_eq!(queue.push(state(1, "f"), &LIMITS, NOW), Pushed::Queued(3));
        assert_eq!(queue.conflated(), 3);
        assert_eq!(drain(&mut queue, NOW), ["b", "c", "f"]);
    }

    #[test]
    fn too_many_control_frames_close_the_socket() {
        let mut queue = queue_of((0..8).map(|_| assign("x")));
        assert_eq!(queue.depth(), (8, 8), "none is dropped");
        assert_eq!(queue.push(assign("x"), &LIMITS, NOW), Pushed::Refused);
        assert!(matches!(queue.next(NOW, true), Next::Close(CloseReason::SlowReader)));
    }

    #[test]
    fn a_close_comes_after_the_queued_frames() {
        let mut queue = queue_of([assign("last")]);
        queue.close(CloseReason::Drain);
        assert_eq!(queue.push(assign("late"), &LIMITS, NOW), Pushed::Refused);
        assert!(matches!(queue.next(NOW, true), Next::Write(_)));
        assert!(matches!(queue.next(NOW, true), Next::Close(CloseReason::Drain)));
    }

    #[test]
    fn a_frame_that_needs_an_answer_is_held_and_states_pass_it() {
        let mut queue = queue_of([
            assign("passive"),
            frame(FrameType::AcceptControl, "accept"),
            state(1, "state"),
            assign("active"),
            frame(FrameType::ClientDisconnected, "left"),
        ]);
        let pushed = NOW;
        assert_eq!(drain(&mut queue, pushed), ["passive", "state", "left"]);
        assert!(matches!(queue.next(pushed, true), Next::Wait(Some(until)) if until > pushed));
        assert_eq!(drain(&mut queue, pushed + ANSWER_HOLD), ["accept", "active"]);
        assert_eq!(queue.depth(), (0, 0));
    }

    #[test]
    fn a_frame_that_needs_an_answer_waits_until_the_input_is_read() {
        let mut queue = queue_of([frame(FrameType::RequestSync, "ask")]);
        let due = NOW + ANSWER_HOLD;
        assert!(matches!(queue.next(due, false), Next::ReadFirst));
        assert_eq!(drain(&mut queue, due), ["ask"]);
    }

    #[test]
    fn a_closing_socket_gets_no_frame_that_needs_an_answer() {
        let mut queue = queue_of([frame(FrameType::AcceptControl, "accept"), assign("active")]);
        queue.close(CloseReason::Drain);
        assert_eq!(drain(&mut queue, NOW), ["active"]);
        assert!(matches!(queue.next(NOW, true), Next::Close(CloseReason::Drain)));
        assert_eq!(queue.depth(), (0, 0));
    }

    #[test]
    fn nothing_is_held_for_a_client_with_the_handshake() {
        let mut queue = queue_of([frame(FrameType::AcceptControl, "accept"), frame(FrameType::RequestSync, "ask")]);
        assert_eq!(drain(&mut queue, NOW), [""; 0]);
        queue.hold_nothing();
        queue.push(frame(FrameType::AcceptControl, "taken"), &LIMITS, NOW);
        assert_eq!(drain(&mut queue, NOW), ["ask", "taken"]);
        assert_eq!(queue.depth(), (0, 0));
    }

    #[test]
    fn a_withdrawn_frame_holds_nothing() {
        let mut queue = queue_of([frame(FrameType::AcceptControl, "accept"), assign("passive")]);
        assert_eq!(drain(&mut queue, NOW), [""; 0]);
        assert_eq!((queue.withdraw(FrameType::AcceptControl), queue.withdraw(FrameType::AcceptControl)), (1, 0));
        assert_eq!(drain(&mut queue, NOW), ["passive"]);
        assert_eq!(queue.depth(), (0, 0));
    }

    #[test]
    fn a_probe_keeps_its_place() {
        let mut queue = queue_of([assign("before")]);
        queue.probe(7);
        queue.push(assign("after"), &LIMITS, NOW);
        assert_eq!(drain(&mut queue, NOW), ["before", "7", "after"]);
    }

    #[test]
    fn only_its_announcement_and_states_pass_after_a_leave() {
        let (mut queue, now) = (Queue::default(), NOW);
        queue.hold_after_leave(now);
        let left = frame(FrameType::ClientDisconnected, "left");
        for item in [left, frame(FrameType::ReleaseControl, "release"), assign("assign"), state(1, "state")] {
            queue.push(item, &LIMITS, NOW);
        }
        assert_eq!(drain(&mut queue, now + LEAVE_HOLD / 2), ["left", "release", "state"]);
        assert_eq!(drain(&mut queue, now + LEAVE_HOLD), ["assign"]);
    }

    #[test]
    fn a_leave_is_never_announced_before_its_join() {
        let (mut queue, now) = (Queue::default(), NOW);
        queue.hold_after_leave(now);
        queue.push(frame(FrameType::ClientConnected, "arrived"), &LIMITS, NOW);
        queue.push(frame(FrameType::ClientDisconnected, "left"), &LIMITS, NOW);
        assert_eq!(drain(&mut queue, now), [""; 0]);
        assert_eq!(drain(&mut queue, now + LEAVE_HOLD), ["arrived", "left"]);
    }

    #[test]
    fn consecutive_leaves_cannot_hold_forever() {
        let (mut queue, start) = (Queue::default(), NOW);
        for leave in 0..20 {
            queue.hold_after_leave(start + leave * LEAVE_HOLD / 2);
        }
        queue.push(assign("assign"), &LIMITS, NOW);
        assert_eq!(drain(&mut queue, start + 20 * LEAVE_HOLD / 2 + LEAVE_HOLD), ["assign"]);
    }
}
