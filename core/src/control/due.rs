//! The changes that time alone causes: expiry, time-outs, the end of a grace period, lapsed nodes. They are made before
//! every event, by the first node that loads the document.

use super::{Decider, millis};
use crate::session::{Assignment, Client, Role, Roster, Status};

impl Decider<'_> {
    pub(super) fn due(&mut self) {
        self.session.core.status = self.session.status_at(self.context.now);
        if self.session.core.status != Status::Active {
            return;
        }
        self.reap_lapsed_nodes();
        self.end_grace_periods();
        self.acknowledge_transfer();
        self.free_followers_of_nobody();
        self.drop_overdue_claims();
    }

    /// Ends the role of followers without a controller. A document that was restored after the store had lost it may
    /// say that all clients follow, although the controller's node is gone too and has not restored the controller.
    /// When the leases of the time before the loss have lapsed, no node can still restore it.
    fn free_followers_of_nobody(&mut self) {
        let now = self.context.now;
        let core = &mut self.session.core;
        if core.controller.is_none() && core.everyone.role == Role::Passive && now >= core.doubtful_until {
            core.everyone = Assignment { role: Role::Connected, change: core.everyone.change + 1 };
            core.changed_at = now;
        }
    }

    /// Completes a transfer if this node has stopped the controller, or the controller's socket or node is gone.
    /// Without a transfer, gives up the control of a controller that has lost its place.
    fn acknowledge_transfer(&mut self) {
        let core = &self.session.core;
        let Some(controller) = &core.controller else { return };
        let place = controller.place.clone();
        let gone = self.session.client(place.connection).is_none();
        let lapsed = self.context.lapsed.contains(&place.node);
        let ours = place.node == *self.context.here || lapsed;
        // A node without a roster has nobody left to stop, and does not read the document any more.
        let left = gone && !self.session.rosters.contains_key(&place.node);
        if core.transfer.is_some() {
            let stopped = lapsed || ours && self.is_flushed(controller);
            if stopped || left || self.is_cut_off(place.connection) {
                self.complete_transfer();
            }
        } else if gone && ours || left {
            // Its own node removed it from the roster, or the roster is gone.
            self.give_up();
        }
    }

    /// Cuts off the clients of nodes whose lease has lapsed. Clients with a resume token keep their place for the grace
    /// period. The others lose it, because they cannot prove that they are back.
    fn reap_lapsed_nodes(&mut self) {
        let now = self.context.now;
        for node in self.context.lapsed {
            let Some(roster) = self.session.rosters.get_mut(node) else { continue };
            roster.clients.retain(|client| client.may_return());
            for client in &mut roster.clients {
                client.cut_off_at.get_or_insert(now);
            }
        }
        self.forget_empty_rosters();
    }

    fn end_grace_periods(&mut self) {
        let (now, grace) = (self.context.now, millis(self.context.rules.grace));
        let over = |client: &Client| client.cut_off_at.is_some_and(|since| now >= since.saturating_add(grace));
        for (node, roster) in &mut self.session.rosters {
            // Only the node itself writes its roster while its lease lasts.
            if node == self.context.here || self.context.lapsed.contains(node) {
                roster.clients.retain(|client| !over(client));
            }
        }
        self.forget_empty_rosters();
    }

    fn forget_empty_rosters(&mut self) {
        let rosters = &mut self.session.rosters;
        rosters.retain(|_, Roster { clients }| !clients.is_empty());
        self.session.activity.retain(|node, _| rosters.contains_key(node));
        let all = |rosters: &std::collections::BTreeMap<_, Roster>| {
            rosters.values().flat_map(|roster| &roster.clients).map(|client| client.connection).collect::<Vec<_>>()
        };
        if !self.session.core.superseded.is_empty() {
            let known = all(rosters);
            self.session.core.superseded.retain(|connection| known.contains(connection));
        }
    }

    fn drop_overdue_claims(&mut self) {
        let (now, pending) = (self.context.now, millis(self.context.rules.pending));
        let open = |at: u64| now < at.saturating_add(pending);
        let session = &self.session;
        let still_here = |place: &crate::session::Place| session.client(place.connection).is_some();
        let keep: Vec<_> =
            session.core.requests.iter().filter(|r| open(r.at) && still_here(&r.place)).cloned().collect();
        let core = &mut self.session.core;
        core.requests = keep;
        core.offer.take_if(|offer| !open(offer.at));
    }
}
