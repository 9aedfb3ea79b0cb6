//! The queue of frames for one socket, shared by the socket's task and the rooms.

use std::task::Context;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use crate::ids::Millis;
use crate::protocol::{CloseReason, FrameType};
use crate::queue::Queue;
use crate::room::Item;

pub use crate::queue::{Next, Pushed, QueueLimits};

/// The queue ([`crate::queue`]) behind a lock. Any task may push to it; the connection's own task drains it. Times are
/// the node's own ([`crate::clock::Clock::local`]).
#[derive(Debug, Default)]
pub struct Outbound {
    queue: Mutex<Queue>,
    waker: AtomicWaker,
}

impl Outbound {
    /// Appends a frame. The caller wakes the task that drains the queue.
    pub fn append(&self, item: Item, limits: &QueueLimits, now: Millis) -> Pushed {
        self.queue.lock().push(item, limits, now)
    }

    /// Removes the unwritten frames of this type. Returns how many there were.
    pub fn withdraw(&self, kind: FrameType) -> usize {
        // The frames behind it may be due.
        self.change(|queue| queue.withdraw(kind))
    }

    /// Queues a probe: the client's pong to the number proves that it has read everything before it, and is reported.
    pub fn probe(&self, number: u64) {
        self.change(|queue| queue.probe(number));
    }

    /// Notes that the client has done the handshake: nothing is held for it any more.
    pub fn hold_nothing(&self) {
        self.change(Queue::hold_nothing);
    }

    /// Closes the socket when the queued frames are written. The first reason counts.
    pub fn close(&self, reason: CloseReason) {
        self.change(|queue| queue.close(reason));
    }

    /// Notes that another client has just left: all frames that are not about that leave are held.
    pub fn hold_after_leave(&self, now: Millis) {
        self.queue.lock().hold_after_leave(now);
    }

    /// The reason for closing the socket, if it is closing.
    #[must_use]
    pub fn closing(&self) -> Option<CloseReason> {
        self.queue.lock().closing()
    }

    /// The bytes and the frames that wait.
    #[must_use]
    pub fn depth(&self) -> (usize, usize) {
        self.queue.lock().depth()
    }

    /// How many states were replaced by newer ones so far.
    #[must_use]
    pub fn conflated(&self) -> u64 {
        self.queue.lock().conflated()
    }

    /// The writer's next step. `heard_all`: all input from the client has just been read.
    pub fn next(&self, now: Millis, heard_all: bool) -> Next {
        self.queue.lock().next(now, heard_all)
    }

    /// Wakes the task that drains the queue.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Wakes the task of `cx` when there is more to do.
    pub fn register(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }

    fn change<A>(&self, change: impl FnOnce(&mut Queue) -> A) -> A {
        let answer = change(&mut self.queue.lock());
        self.waker.wake();
        answer
    }
}
