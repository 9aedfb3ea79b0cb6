//! The numbers on a link: they show that messages between two nodes were lost, and which ones.
//!
//! A link leads from one incarnation of a node to one of another. Its messages are numbered from 1. The receiver sees a
//! gap when a number, or the last number that the sender reports, is higher than expected. It asks about the gap until
//! the sender has noted it. The sender remembers the session of each number. Pure: no I/O, no clock.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use crate::ids::SessionId;

/// How many numbers a sender remembers the session of: 64 KiB on a link that has sent that many.
pub(super) const RING: usize = 4_096;

/// The sender's end of a link.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// The id of this link, higher than the ids of all earlier links between the same two nodes.
    pub(super) id: u64,
    last: u64,
    /// The sessions of the last numbers, up to `last`.
    ring: VecDeque<SessionId>,
    /// Losses up to this number have been reported.
    mended: u64,
}

impl Outgoing {
    /// Creates a link without messages.
    pub(super) fn new(id: u64) -> Self {
        Self { id, last: 0, ring: VecDeque::new(), mended: 0 }
    }

    /// Returns the number of the next message, which belongs to `session`.
    pub(super) fn number(&mut self, session: SessionId) -> u64 {
        if self.ring.len() == RING {
            self.ring.pop_front();
        }
        self.ring.push_back(session);
        self.last += 1;
        self.last
    }

    /// The last number used; zero before the first.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Whether this number was never used on the link.
    pub(super) fn is_unused(&self, number: u64) -> bool {
        number > self.last
    }

    /// The sessions to resync after the receiver reported these numbers missing; `Some(None)` if they are not known any
    /// more. `None`: all of these losses were reported before.
    pub(super) fn lost(&self, missed: &RangeInclusive<u64>) -> Option<Option<Vec<SessionId>>> {
        let (from, to) = ((*missed.start()).max(self.mended + 1), (*missed.end()).min(self.last));
        if from > to {
            return None;
        }
        let forgotten = self.last - self.ring.len() as u64;
        if from <= forgotten {
            return Some(None);
        }
        // Both lie in the ring, whose length is a usize.
        let position = |number: u64| usize::try_from(number - forgotten - 1).unwrap_or(usize::MAX);
        let mut sessions: Vec<SessionId> = self.ring.range(position(from)..=position(to)).copied().collect();
        sessions.sort_unstable();
        sessions.dedup();
        Some(Some(sessions))
    }

    /// Notes that all losses up to this number have been reported.
    pub(super) fn note_reported(&mut self, missed: &RangeInclusive<u64>) {
        self.mended = self.mended.max((*missed.end()).min(self.last));
    }
}

/// The receiver's end of a link.
#[derive(Debug)]
pub(super) struct Incoming {
    /// [`Outgoing::id`] of the other end.
    pub(super) id: u64,
    expected: u64,
    /// The numbers that are missing and not yet noted by the sender. If there are several gaps, the range also spans
    /// the numbers between them, because a needless resync of a session does no harm.
    gap: Option<RangeInclusive<u64>>,
}

impl Incoming {
    /// Creates a link on which nothing has arrived.
    pub(super) fn new(id: u64) -> Self {
        Self { id, expected: 1, gap: None }
    }

    /// Notes that the message with this number has arrived. Returns `false` if it, or the report of its loss, arrived
    /// before.
    pub(super) fn arrived(&mut self, number: u64) -> bool {
        if number < self.expected {
            return false;
        }
        self.expect(number);
        self.expected = number.saturating_add(1);
        true
    }

    /// Notes the sender's last number: all messages up to it have arrived, or are lost.
    pub(super) fn last_is(&mut self, number: u64) {
        self.expect(number.saturating_add(1));
    }

    /// The gap to ask the sender about, repeatedly until it answers.
    pub(super) fn gap(&self) -> Option<&RangeInclusive<u64>> {
        self.gap.as_ref()
    }

    /// Notes that the sender knows that these numbers are missing.
    pub(super) fn noted(&mut self, noted: &RangeInclusive<u64>) {
        if let Some(gap) = &self.gap {
            let from = if noted.contains(gap.start()) { noted.end().saturating_add(1) } else { *gap.start() };
            let to = *gap.end();
            self.gap = (from <= to).then_some(from..=to);
        }
    }

    /// The sender has ended: nobody can be asked about the gap.
    pub(super) fn give_up(&mut self) {
        self.gap = None;
    }

    fn expect(&mut self, next: u64) {
        if next > self.expected {
            let from = self.gap.as_ref().map_or(self.expected, |gap| *gap.start());
            self.gap = Some(from..=next - 1);
            self.expected = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Random;

    #[test]
    fn a_late_receiver_misses_all_before_its_first_number() {
        let mut link = Incoming::new(1);
        assert!(link.arrived(5));
        assert_eq!(link.gap(), Some(&(1..=4)));
        assert!(!link.arrived(3), "a message that was given up as lost is not delivered late");
    }

    #[test]
    fn a_loss_at_the_tail_is_found_by_the_senders_report() {
        let mut link = Incoming::new(1);
        assert!(link.arrived(1));
        link.last_is(1);
        assert_eq!(link.gap(), None);
        link.last_is(3);
        assert_eq!(link.gap(), Some(&(2..=3)));
        link.noted(&(2..=2));
        assert_eq!(link.gap(), Some(&(3..=3)));
        link.noted(&(2..=3));
        assert_eq!(link.gap(), None);
    }

    #[test]
    fn a_sender_that_no_longer_knows_reports_that() {
        let mut link = Outgoing::new(1);
        for _ in 0..=RING {
            link.number(SessionId::random());
        }
        assert_eq!(link.lost(&(1..=1)), Some(None));
        assert_eq!(link.lost(&(2..=2)).flatten().map(|sessions| sessions.len()), Some(1));
        assert_eq!(link.lost(&(RING as u64 + 2..=u64::MAX)), None);
    }

    proptest! {
        #[test]
        fn losses_are_reported_and_the_rest_arrives_in_order_once(
            rounds in prop::collection::vec((prop::collection::vec(any::<bool>(), 0..6), any::<bool>(), any::<bool>()), 1..40)
        ) {
            let (mut out, mut into) = (Outgoing::new(1), Incoming::new(1));
            let (mut sent, mut got, mut reported) = (Vec::new(), Vec::new(), Vec::new());
            // The last round loses nothing, because the fault is over.
            for (messages, ask, answer) in rounds.into_iter().chain([(vec![], true, true)]) {
                for arrives in messages {
                    let session = SessionId::random();
                    let number = out.number(session);
                    sent.push(session);
                    if arrives && into.arrived(number) {
                        got.push(session);
                    }
                }
                if !ask { continue }
                into.last_is(out.last());
                let Some(gap) = into.gap().cloned() else { continue };
                reported.extend(out.lost(&gap).flatten().unwrap_or_default());
                out.note_reported(&gap);
                if answer {
                    into.noted(&gap);
                }
            }
            prop_assert_eq!(into.gap(), None);
            prop_assert!(sent.iter().all(|session| got.contains(session) || reported.contains(session)));
            let order: Vec<_> = sent.iter().filter(|session| got.contains(session)).copied().collect();
            prop_assert_eq!(got, order);
        }
    }
}
