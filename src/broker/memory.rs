//! A broker inside one process for the nodes in it: for tests, for embedding, and for a single node.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::mpsc::{self, error::TrySendError};

use super::{Broker, BrokerError, Delivery, Message, SharedBroker};
use crate::ids::{NodeId, SessionId};
use crate::region::Region;

/// The largest number of deliveries that wait for a node. A message beyond it is lost, and reported.
const MAX_DELIVERIES: usize = 16_384;
/// How many sessions of lost messages are remembered for each pair of nodes.
const MAX_LOST: usize = 4_096;

/// The channels between the nodes of one process. Clones share one bus.
#[derive(Clone, Default)]
pub struct MemoryBus {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    inboxes: BTreeMap<NodeId, mpsc::Sender<Delivery>>,
    /// The losses that are not reported yet, by sender and receiver; `None` for more sessions than are remembered.
    lost: BTreeMap<(NodeId, NodeId), Option<BTreeSet<SessionId>>>,
    drop_next: usize,
}

impl MemoryBus {
    /// Creates a bus without nodes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens a node's inbox, which closes when the returned broker is dropped. The caller must read the inbox.
    ///
    /// A message to a node that has not joined is lost, and reported when that node joins.
    #[must_use]
    pub fn join(&self, node: NodeId) -> (SharedBroker, mpsc::Receiver<Delivery>) {
        let (inbox, delivered) = mpsc::channel(MAX_DELIVERIES);
        let mut state = self.state.lock();
        state.inboxes.insert(node.clone(), inbox);
        state.report();
        drop(state);
        (Arc::new(MemoryBroker { node, bus: self.clone() }), delivered)
    }

    /// Drops the next `count` messages: for tests.
    pub fn drop_next(&self, count: usize) {
        self.state.lock().drop_next = count;
    }
}

impl fmt::Debug for MemoryBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBus").finish_non_exhaustive()
    }
}

impl State {
    fn publish(&mut self, from: &NodeId, to: &NodeId, message: Message) {
        let session = message.session;
        let delivery = Delivery::Message { from: from.clone(), message };
        let arrived = self.drop_next == 0 && self.inboxes.get(to).is_some_and(|inbox| inbox.try_send(delivery).is_ok());
        self.drop_next = self.drop_next.saturating_sub(1);
        if !arrived {
            let lost = self.lost.entry((from.clone(), to.clone())).or_insert_with(|| Some(BTreeSet::new()));
            if let Some(sessions) = lost {
                sessions.insert(session);
            }
            if lost.as_ref().is_some_and(|sessions| sessions.len() > MAX_LOST) {
                *lost = None;
            }
        }
        if !self.lost.is_empty() {
            self.report();
        }
    }

    /// Reports every loss whose sender and receiver can be reached; the report itself is never lost.
    fn report(&mut self) {
        let inboxes = &self.inboxes;
        self.lost.retain(|(from, to), sessions| {
            let (Some(inbox), true) = (inboxes.get(from), inboxes.contains_key(to)) else {
                return inboxes.contains_key(from);
            };
            let sessions = sessions.as_ref().map(|sessions| sessions.iter().copied().collect());
            let report = Delivery::Lost { to: to.clone(), sessions };
            matches!(inbox.try_send(report), Err(TrySendError::Full(_)))
        });
    }
}

/// One node's connection to the other nodes of its process.
pub struct MemoryBroker {
    node: NodeId,
    bus: MemoryBus,
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBroker").field("node", &self.node).finish_non_exhaustive()
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    fn publish(&self, to: &NodeId, message: Message) {
        self.bus.state.lock().publish(&self.node, to, message);
    }

    async fn probe(&self, _: Region) -> Result<(), BrokerError> {
        let mut state = self.bus.state.lock();
        state.report();
        let hears = state.inboxes.get(&self.node).is_some_and(|inbox| !inbox.is_closed());
        if hears { Ok(()) } else { Err(BrokerError::InboxSilent) }
    }

    /// Always zero: a published message is in the receiver's inbox at once.
    async fn follow(&self, _: Region, _: &str) -> Result<(), BrokerError> {
        Ok(())
    }

    fn queued(&self) -> usize {
        0
    }

    fn forget(&self, _: Region, node: &NodeId) {
        self.bus.state.lock().lost.remove(&(self.node.clone(), node.clone()));
    }
}

impl Drop for MemoryBroker {
    fn drop(&mut self) {
        let mut state = self.bus.state.lock();
        state.inboxes.remove(&self.node);
        state.lost.retain(|(from, _), _| *from != self.node);
    }
}
