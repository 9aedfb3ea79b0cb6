//! The hash of a room ([`crate::print`]): what decides about control, and what is still to be done.

use std::hash::{Hash, Hasher};

use super::decide::Decision;
use super::member::Member;
use super::recent::Fence;
use super::work::Job;
use super::{Known, Room, Stream};

impl<S, T> Hash for Room<S, T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { known, control, members, stream, reports: _, work } = self;
        (known, control, members, stream, work).hash(state);
    }
}

impl Hash for Known {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { view, elsewhere: _, term, stale, unread_since_loss, unannounced, due_at, unresolved_write } = self;
        // Other deadlines are functions of the document and of times that do not count.
        let doubt_ends = view.as_ref().is_some_and(|view| *due_at == view.session.core.doubtful_until);
        (view, term, stale, unread_since_loss, unannounced, doubt_ends, unresolved_write).hash(state);
    }
}

impl Hash for Stream {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fence.hash(state);
    }
}

impl Hash for Fence {
    /// Frames of one epoch count as one.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.epoch.hash(state);
    }
}

impl<S> Hash for Member<S> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { connection, socket: _, client, view, states, spoke, superseded, seq: _, accepted: _ } = self;
        (connection, client, spoke, superseded, states.initial_push, states.last.is_some(), states.takes_any_answer())
            .hash(state);
        let legacy = view.legacy().map(|legacy| (legacy.held.is_some(), legacy.acks.pending()));
        legacy.hash(state);
    }
}

impl<S, T> Hash for Job<S, T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { event, cause: _, ticket: _ } = self;
        event.hash(state);
    }
}

impl Hash for Decision {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { session, effects: _, taken, write } = self;
        let write = write.as_ref().map(|write| (write.id, &write.base));
        (session, taken, write).hash(state);
    }
}
