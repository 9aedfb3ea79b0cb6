//! The states that passed in a room: the fence against late ones, and the hashes of recent ones.

use std::collections::VecDeque;

use crate::ids::{ConnectionId, Epoch, Seq};

/// The newest state that arrived from another node, used to refuse older ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    pub(super) epoch: Epoch,
    last: Option<(ConnectionId, Seq)>,
}

impl Fence {
    /// Checks whether a state is newer than all delivered ones; if so, it becomes the newest.
    pub fn admit(&mut self, epoch: Epoch, source: ConnectionId, seq: Seq) -> bool {
        let again = self.last.is_some_and(|(connection, number)| connection == source && seq <= number);
        if epoch < self.epoch || (epoch == self.epoch && again) {
            return false;
        }
        *self = Self { epoch, last: Some((source, seq)) };
        true
    }

    /// Refuses all states of an epoch before this one from now on.
    pub fn raise(&mut self, epoch: Epoch) {
        if self.epoch < epoch {
            *self = Self { epoch, last: None };
        }
    }
}

/// How many states a room remembers.
const MAX_PASSED: usize = 32;

/// The hashes of the states that passed in a session recently. A state among them is not new, whichever client sends
/// it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RecentStates(VecDeque<u64>);

impl RecentStates {
    /// Adds a state.
    pub fn note(&mut self, hash: u64) {
        if self.0.len() == MAX_PASSED {
            self.0.pop_front();
        }
        self.0.push_back(hash);
    }

    /// Adds the states that another node knows, oldest first, as older than all that passed on this node.
    pub fn learn(&mut self, older: &[u64]) {
        let room = MAX_PASSED.saturating_sub(self.0.len());
        for hash in older.iter().rev().take(room) {
            self.0.push_front(*hash);
        }
    }

    /// Whether it has no state.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All hashes, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().copied()
    }

    /// Whether it has this hash.
    #[must_use]
    pub fn contains(&self, hash: u64) -> bool {
        self.0.contains(&hash)
    }
}
