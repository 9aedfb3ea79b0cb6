//! All links of one node: the outgoing queues and the incoming numbers. No I/O, no clock.
//!
//! Without a cluster secret a publication may be forged by whoever can reach Redis. What it can do is bounded, and undone
//! within two heartbeats: a link that nobody sends on gives way to the one that is heard, and a receiver that believes in
//! numbers that were never used gets a new link. With a secret a publication can only be repeated, so no link gives way:
//! each keeps its place after its sender has ended, and what is repeated has numbers that arrived before.

use std::collections::HashMap;

use super::link::{Incoming, Outgoing};
use super::wire::{Entry, Head, Item};
use super::{Body, Message, RoutedFrame};
use crate::ids::NodeId;

/// The largest number of messages that wait to be sent.
const MAX_QUEUED: usize = 16_384;
/// The largest number of frame bytes that wait to be sent.
const MAX_QUEUED_BYTES: usize = 32 * 1024 * 1024;
/// A link to a node is dropped after this many heartbeats without a message to it.
const IDLE_OUT: u32 = 3_600;
/// A link from a node is dropped after this many heartbeats without a message from it.
const IDLE_IN: u32 = 600;
/// The largest number of nodes that this node hears.
const MAX_PEERS: usize = 4_096;

/// Both ends of this node's links.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    lanes: HashMap<NodeId, Lane>,
    incoming: HashMap<NodeId, Heard>,
    queued: usize,
    queued_bytes: usize,
    links: u64,
    /// Nothing is heard that is not signed.
    signed: bool,
}

/// The outgoing link to one node.
#[derive(Debug)]
struct Lane {
    link: Outgoing,
    queue: Vec<Item>,
    /// When the first message of the queue was published, in microseconds.
    since: u64,
    idle: u32,
}

/// The incoming link from one node.
#[derive(Debug)]
struct Heard {
    link: Incoming,
    /// How many heartbeats the link has been silent for.
    idle: u32,
    /// A publication came on an older link since the last heartbeat.
    older: bool,
}

impl Heard {
    fn new(link: u64) -> Self {
        Self { link: Incoming::new(link), idle: 0, older: false }
    }
}

/// The items for one node, taken from its queue.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) to: NodeId,
    pub(super) link: u64,
    pub(super) sent_at: u64,
    pub(super) items: Vec<Item>,
}

impl Exchange {
    /// An exchange without links. `signed`: nothing is heard that is not signed.
    pub(super) fn new(signed: bool) -> Self {
        Self { signed, ..Self::default() }
    }

    /// Queues a message. Returns `false` if the queue is full; the message's number then stays a gap that the receiver
    /// notices.
    pub(super) fn publish(&mut self, to: &NodeId, message: Message, now: u64) -> bool {
        let fits = self.queued < MAX_QUEUED && self.queued_bytes < MAX_QUEUED_BYTES;
        let lane = self.lane(to);
        lane.idle = 0;
        let number = lane.link.number(message.session);
        let Some(item) = item(number, message).filter(|_| fits) else { return false };
        let bytes = item.text.len();
        lane.put(item, now);
        self.queued += 1;
        self.queued_bytes += bytes;
        true
    }

    /// Queues a control entry of the broker, which has no number.
    pub(super) fn send(&mut self, to: &NodeId, entry: Entry, now: u64) {
        self.queued += 1;
        self.lane(to).put(entry.into(), now);
    }

    /// How many items wait to be sent, control entries of the broker included.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// Takes all queued items, grouped by receiver.
    pub(super) fn drain(&mut self) -> Vec<Batch> {
        (self.queued, self.queued_bytes) = (0, 0);
        let waiting = self.lanes.iter_mut().filter(|(_, lane)| !lane.queue.is_empty());
        let batch = |(to, lane): (&NodeId, &mut Lane)| Batch {
            to: to.clone(),
            link: lane.link.id,
            sent_at: lane.since,
            items: std::mem::take(&mut lane.queue),
        };
        waiting.map(batch).collect()
    }

    /// Runs once in each heartbeat interval: sends the last number on each link, asks about open gaps again, and drops
    /// links that have long been silent.
    pub(super) fn tick(&mut self, now: u64) {
        self.lanes.retain(|_, lane| {
            lane.idle += 1;
            lane.idle <= IDLE_OUT
        });
        self.incoming.retain(|_, heard| {
            heard.idle += 1;
            // The sender repeats its last number in every heartbeat interval on the link that it uses.
            let given_up = std::mem::take(&mut heard.older) && heard.idle > 1;
            self.signed || heard.idle <= IDLE_IN && !given_up
        });
        for lane in self.lanes.values_mut().filter(|lane| lane.link.last() > 0) {
            lane.put(Entry::Last { number: lane.link.last() }.into(), now);
            self.queued += 1;
        }
        let open: Vec<NodeId> = self.incoming.keys().cloned().collect();
        open.iter().for_each(|from| self.ask(from, now));
    }

    /// Notes that a publication arrived on this link. Returns `false` if the link is an old one, or if this node hears
    /// too many others; the caller then ignores the publication.
    pub(super) fn heard(&mut self, head: &Head) -> bool {
        if self.incoming.len() >= MAX_PEERS && !self.incoming.contains_key(&head.from) && !self.drop_silent() {
            return false;
        }
        let heard = self.incoming.entry(head.from.clone()).or_insert_with(|| Heard::new(head.link));
        if heard.link.id < head.link {
            *heard = Heard::new(head.link);
        }
        let current = heard.link.id == head.link;
        if current {
            heard.idle = 0;
        } else {
            heard.older = true;
        }
        current
    }

    /// Makes room for another node: drops the link that has been silent for the longest time. Returns `false` if all are
    /// in use.
    fn drop_silent(&mut self) -> bool {
        let longest = self.incoming.iter().max_by_key(|(_, heard)| heard.idle);
        let silent = longest.filter(|(_, heard)| heard.idle > IDLE_IN).map(|(node, _)| node.clone());
        silent.is_some_and(|node| self.incoming.remove(&node).is_some())
    }

    /// The receiver's end of the link that [`Exchange::heard`] was just called with.
    pub(super) fn incoming(&mut self, from: &NodeId) -> Option<&mut Incoming> {
        self.incoming.get_mut(from).map(|heard| &mut heard.link)
    }

    /// The sender's end of the link to a node, if its id is `link`.
    pub(super) fn outgoing(&mut self, to: &NodeId, link: u64) -> Option<&mut Outgoing> {
        self.lanes.get_mut(to).map(|lane| &mut lane.link).filter(|outgoing| outgoing.id == link)
    }

    /// Asks a node about the messages of it that are missing, if any are.
    pub(super) fn ask(&mut self, from: &NodeId, now: u64) {
        let Some(link) = self.incoming(from) else { return };
        let Some(gap) = link.gap() else { return };
        let entry = Entry::Missed { link: link.id, from: *gap.start(), to: *gap.end() };
        self.send(from, entry, now);
    }

    /// Drops both directions.
    pub(super) fn forget(&mut self, node: &NodeId) {
        self.restart(node);
        match self.incoming.get_mut(node) {
            Some(heard) if self.signed => heard.link.give_up(),
            _ => drop(self.incoming.remove(node)),
        }
    }

    /// Drops the outgoing link and what waits on it. The next message begins another link.
    pub(super) fn restart(&mut self, node: &NodeId) {
        if let Some(lane) = self.lanes.remove(node) {
            self.queued = self.queued.saturating_sub(lane.queue.len());
            let bytes: usize = lane.queue.iter().map(|item| item.text.len()).sum();
            self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
        }
    }

    fn lane(&mut self, to: &NodeId) -> &mut Lane {
        if !self.lanes.contains_key(to) {
            self.links += 1;
            let lane = Lane { link: Outgoing::new(self.links), queue: Vec::new(), since: 0, idle: 0 };
            self.lanes.insert(to.clone(), lane);
        }
        self.lanes.get_mut(to).expect("it was just put there")
    }
}

impl Lane {
    fn put(&mut self, item: Item, now: u64) {
        if self.queue.is_empty() {
            self.since = now;
        }
        self.queue.push(item);
    }
}

/// Builds an item; `None` for a frame of 4 GiB or more.
fn item(number: u64, message: Message) -> Option<Item> {
    let session = message.session;
    Some(match message.body {
        Body::Changed { version } => Entry::Changed { number, session, version }.into(),
        Body::Frame(RoutedFrame { route, text }) => {
            let length = u32::try_from(text.len()).ok()?;
            Item { entry: Entry::Frame { number, session, route, length }, text }
        }
        Body::RecentStates(states) => Entry::RecentStates { number, session, states }.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SessionId;
    use crate::random::Random;

    fn changed() -> Message {
        Message { session: SessionId::random(), body: Body::Changed { version: 1 } }
    }

    #[test]
    fn a_message_that_does_not_fit_leaves_a_gap_in_the_numbers() {
        let (mut exchange, to) = (Exchange::default(), NodeId::from_text("b@1"));
        for _ in 0..MAX_QUEUED {
            assert!(exchange.publish(&to, changed(), 0));
        }
        assert!(!exchange.publish(&to, changed(), 0));
        assert_eq!(exchange.queued(), MAX_QUEUED);
        assert_eq!(exchange.drain()[0].items.len(), MAX_QUEUED);
        assert_eq!(exchange.queued(), 0);
        assert!(exchange.publish(&to, changed(), 0));
        let after = &exchange.drain()[0].items[0].entry;
        assert!(matches!(after, Entry::Changed { number, .. } if *number == MAX_QUEUED as u64 + 2));
    }

    #[test]
    fn a_forgotten_node_that_comes_back_gets_a_new_link() {
        let (mut exchange, node) = (Exchange::default(), NodeId::from_text("b@1"));
        exchange.publish(&node, changed(), 0);
        let first = exchange.drain()[0].link;
        exchange.forget(&node);
        exchange.publish(&node, changed(), 0);
        assert!(exchange.drain()[0].link > first);
        let head = |link| Head { from: node.clone(), link, sent_at: 0 };
        assert!(exchange.heard(&head(2)) && !exchange.heard(&head(1)));
    }

    #[test]
    fn a_link_that_nobody_uses_gives_way_to_the_one_that_is_heard() {
        let (mut exchange, from) = (Exchange::default(), NodeId::from_text("b@1"));
        let head = |link| Head { from: from.clone(), link, sent_at: 0 };
        assert!(exchange.heard(&head(u64::MAX)) && !exchange.heard(&head(3)));
        exchange.tick(0);
        assert!(!exchange.heard(&head(3)), "the link was used since the heartbeat before");
        exchange.tick(0);
        assert!(exchange.heard(&head(3)));
    }

    #[test]
    fn with_a_secret_nothing_that_is_repeated_is_heard_again() {
        let (mut exchange, from) = (Exchange::new(true), NodeId::from_text("b@1"));
        let head = |link| Head { from: from.clone(), link, sent_at: 0 };
        assert!(exchange.heard(&head(1)) && exchange.heard(&head(2)));
        assert!(exchange.incoming(&from).is_some_and(|link| link.arrived(1) && link.arrived(5)));
        exchange.forget(&from);
        for _ in 0..=IDLE_IN {
            exchange.tick(0);
            assert!(!exchange.heard(&head(1)), "a link does not give way to an older one");
        }
        assert_eq!(exchange.queued(), 0, "nobody is asked about the gaps of a node that has ended");
        assert!(exchange.heard(&head(2)));
        assert!(exchange.incoming(&from).is_some_and(|link| !link.arrived(1) && !link.arrived(5)));
    }

    #[test]
    fn links_of_nodes_that_ended_make_room() {
        let mut exchange = Exchange::new(true);
        let head = |name: usize| Head { from: NodeId::from_text(&format!("n{name}@1")), link: 1, sent_at: 0 };
        assert!((0..MAX_PEERS).all(|name| exchange.heard(&head(name))));
        assert!(!exchange.heard(&head(MAX_PEERS)));
        (0..=IDLE_IN).for_each(|_| exchange.tick(0));
        assert!(exchange.heard(&head(MAX_PEERS)) && exchange.incoming.len() == MAX_PEERS);
    }

    #[test]
    fn a_node_that_hears_too_many_ignores_the_others() {
        let mut exchange = Exchange::default();
        let head = |name: usize| Head { from: NodeId::from_text(&format!("n{name}@1")), link: 1, sent_at: 0 };
        assert!((0..MAX_PEERS).all(|name| exchange.heard(&head(name))));
        assert!(!exchange.heard(&head(MAX_PEERS)) && exchange.heard(&head(0)));
    }

    #[test]
    fn nodes_that_stay_silent_are_dropped_in_the_end() {
        let (mut exchange, node) = (Exchange::default(), NodeId::from_text("b@1"));
        exchange.publish(&node, changed(), 0);
        exchange.heard(&Head { from: node, link: 1, sent_at: 0 });
        for _ in 0..=IDLE_OUT {
            exchange.tick(0);
            exchange.drain();
        }
        assert!(exchange.lanes.is_empty() && exchange.incoming.is_empty());
    }
}
