//! What is due in a room, and the reports of its activity.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Step;
use super::output::{Output, Outputs};
use crate::ids::{Millis, NodeId};
use crate::session::{Activity, Session, Status};

/// How often a node reports the activity of a busy session to the store, in milliseconds.
const REPORT_INTERVAL: Millis = 5_000;

/// How long the store keeps a document beyond its end, in milliseconds. The rules decide when a session ends, not the
/// store's clock.
const SLACK: Millis = 60_000;

/// What the store knows of the activity in a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Reports {
    /// The last activity of this node's clients.
    pub(super) latest: Activity,
    /// The activity that the store knows.
    known: Activity,
    /// When it was last reported, in the store's time.
    at: Millis,
    /// The document is read again after the report that is under way.
    then_reload: bool,
}

impl<S, T, O: Outputs<S, T>> Step<'_, '_, S, T, O> {
    /// Reads the document again if something is due, reports activity if it is time, and asks the controller for a state
    /// that was not asked for yet.
    pub(super) fn tick(&mut self) {
        if self.room.stream.needs_resync && self.room.stream.asked.is_none() {
            self.bring_up_to_date();
        }
        let due = self.room.known.stale || self.env.now.store >= self.room.known.due_at;
        if self.is_unreported(due) {
            self.room.reports.then_reload |= due;
            self.report();
        } else if due {
            self.reload();
        }
    }

    /// Nothing that was known is certain any more.
    pub(super) fn distrust(&mut self, data_lost: bool) {
        self.room.known.stale = true;
        self.room.known.unread_since_loss |= data_lost;
        if data_lost {
            self.room.work.data_lost();
        }
        if let Some(view) = self.room.known.view.as_mut().filter(|_| data_lost) {
            // A store that has lost its data counts its writes from one again.
            view.version = 0;
        }
    }

    /// Whether the store does not know the last activity of this node's clients.
    fn is_unreported(&self, at_once: bool) -> bool {
        let Reports { latest, known, at, .. } = self.room.reports;
        let Some(view) = &self.room.known.view else { return false };
        let interval = REPORT_INTERVAL.min(view.session.info.ttl / 4);
        let due = at_once || self.env.now.store.saturating_sub(at) >= interval;
        due && known != latest
    }

    /// Notes the activity of a client of this room; `drove`: it was the controller. The first activity after a pause is
    /// reported at once.
    pub(super) fn note_activity(&mut self, drove: bool) {
        let now = self.env.now.store;
        self.room.reports.latest.seen_at = now;
        if drove {
            self.room.reports.latest.drove_at = now;
        }
        if self.is_unreported(false) {
            let latest = self.room.reports.latest;
            (self.room.reports.known, self.room.reports.at) = (latest, now);
            self.report();
        }
    }

    fn report(&mut self) {
        let Some(view) = &self.room.known.view else { return };
        let activity = self.room.reports.latest;
        let mut active = Session::clone(&view.session);
        active.activity.insert(self.env.here.clone(), activity);
        let keep = keep(&active, self.env.now.store);
        self.out.put(Output::Touch(activity, keep));
    }

    pub(super) fn touched(&mut self, activity: Activity, found: Option<bool>) {
        let reports = &mut self.room.reports;
        match found {
            Some(true) => (reports.known, reports.at) = (activity, self.env.now.store),
            Some(false) => self.room.known.stale = true,
            None => reports.at = self.env.now.store,
        }
        if std::mem::take(&mut self.room.reports.then_reload) {
            self.reload();
        }
    }

    /// The time at which this document needs the next decision.
    pub(super) fn due_at(&self, session: &Session, lapsed: &BTreeSet<NodeId>) -> Millis {
        let (rules, now) = (self.env.rules, self.env.now.store);
        let pending = millis(rules.pending);
        let claims = session.core.requests.iter().map(|request| request.at + pending);
        let offers = session.core.offer.iter().map(|offer| offer.at + pending);
        let ours = session.rosters.iter().filter(|(node, _)| *node == self.env.here || lapsed.contains(*node));
        let grace = ours.flat_map(|(_, roster)| roster.clients.iter().filter_map(|client| client.cut_off_at));
        let grace = grace.map(|since| since + millis(rules.grace));
        let ends = std::iter::once(session.expires_at());
        let until = Some(session.core.doubtful_until);
        let doubt = until.filter(|until| session.core.controller.is_none() && *until > now);
        claims.chain(offers).chain(grace).chain(ends).chain(doubt).min().unwrap_or(Millis::MAX)
    }
}

/// How long the store keeps this document.
#[must_use]
pub fn keep(session: &Session, now: Millis) -> Duration {
    let end = match session.core.status {
        Status::Active | Status::Expired => session.expires_at(),
        // A tombstone lasts as long as the session could have, so that no late write restores the session.
        Status::Deleted => session.info.ends_at,
    };
    Duration::from_millis(end.saturating_sub(now) + SLACK)
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
