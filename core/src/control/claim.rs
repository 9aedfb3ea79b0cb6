//! Claims: the decision on a claim, and the steps in which control moves.

use super::{Decider, Effect, Transition, millis};
use crate::ids::ConnectionId;
use crate::protocol::ErrorCode;
use crate::session::{Assignment, Client, Controller, Ended, EpochEnd, Place, Request, Role, Strategy, Transfer};

/// How a client claims control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// `coordinate_sync_direction` ACTIVE.
    Coordinate,
    /// `request_control`.
    Request,
    /// `accept_control`: the client takes control.
    Take,
    /// A frame that only a controller sends, or an `accept_control`, of a client that acts first: it believes to have
    /// control already.
    Assume,
}

/// The decision on a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The claimant is the controller.
    Granted,
    /// The claimant becomes the controller when the present controller's node has stopped the present one.
    Moving,
    /// The claim waits for the controller's decision.
    Waiting,
    /// The claim is refused.
    Refused,
}

impl Decider<'_> {
    /// Decides a claim of a client of this node (docs/protocol.md, "Claims").
    pub(super) fn claim(&mut self, claimant: &Client, claim: Claim) -> Verdict {
        let Some(controller) = self.session.core.controller.clone() else {
            return self.grant_to(claimant, false, EpochEnd::Taken);
        };
        if controller.place.connection == claimant.connection {
            // It is told ACTIVE once more, in the same epoch. It has asked for the role now.
            self.no_longer_provisional();
            return Verdict::Granted;
        }
        if self.session.awaits(claimant.connection) {
            return Verdict::Moving;
        }
        if self.session.core.transfer.is_some() {
            return self.refuse(claimant, claim, ErrorCode::ControlPending);
        }
        if self.yields(&controller, claim) {
            return self.grant_to(claimant, false, EpochEnd::Taken);
        }
        let cut_off = self.is_cut_off(controller.place.connection);
        match (self.session.info.strategy, claim) {
            (Strategy::FirstComeFirstServed, Claim::Take | Claim::Assume) => {
                self.grant_to(claimant, false, EpochEnd::Taken)
            }
            (Strategy::FirstComeFirstServed, Claim::Coordinate) if !cut_off => {
                self.refuse(claimant, claim, ErrorCode::ControlHeld)
            }
            (Strategy::FirstComeFirstServed, Claim::Coordinate | Claim::Request) => self.wait(claimant, claim, 1),
            (Strategy::UserChoice, Claim::Take | Claim::Assume) if cut_off => {
                self.grant_to(claimant, false, EpochEnd::Taken)
            }
            (Strategy::UserChoice, _) => self.wait(claimant, claim, self.context.rules.max_requests),
            (Strategy::DenyBoth, _) => self.refuse(claimant, claim, ErrorCode::ControlDenied),
        }
    }

    /// Whether the controller yields: to any claim if it never asked for the role; to an ask if it was quiet for
    /// [`super::Rules::quiet`] and may have given control up without a frame.
    fn yields(&self, controller: &Controller, claim: Claim) -> bool {
        let client = self.session.client(controller.place.connection);
        let may_have_let_go = client.is_none_or(|(_, client)| !client.announces_release());
        let asks = matches!(claim, Claim::Coordinate | Claim::Request);
        let activity = self.session.activity.get(&controller.place.node).copied().unwrap_or_default();
        let quiet_since = activity.drove_at.max(controller.since);
        let quiet = self.context.now.saturating_sub(quiet_since) >= millis(self.context.rules.quiet);
        controller.provisional || (asks && may_have_let_go && quiet)
    }

    pub(super) fn is_cut_off(&self, connection: ConnectionId) -> bool {
        self.session.client(connection).is_some_and(|(_, client)| client.cut_off_at.is_some())
    }

    fn refuse(&mut self, claimant: &Client, claim: Claim, code: ErrorCode) -> Verdict {
        self.follow_instead(claimant, claim);
        self.reject(claimant.connection, code);
        self.emit(Effect::Count(Transition::Refused));
        Verdict::Refused
    }

    /// Lets the claim wait and asks the controller, unless `limit` other claims wait already.
    fn wait(&mut self, claimant: &Client, claim: Claim, limit: usize) -> Verdict {
        let core = &self.session.core;
        let known = core.requests.iter().any(|request| request.place.connection == claimant.connection);
        if !known && core.requests.len() >= limit {
            return self.refuse(claimant, claim, ErrorCode::ControlPending);
        }
        self.follow_instead(claimant, claim);
        if known {
            return Verdict::Waiting;
        }
        let place = self.place_of(claimant);
        let request = Request { place, client: claimant.name().clone(), at: self.context.now };
        self.session.core.requests.push(request);
        if let Some(controller) = &self.session.core.controller {
            let controller = controller.place.clone();
            self.emit(Effect::AskController { controller, claimant: claimant.name().clone() });
        }
        Verdict::Waiting
    }

    /// Makes a claimant that does not get control a follower, in two cases: it coordinated, so it has chosen a role; or
    /// it believes to have control, and has to be told.
    fn follow_instead(&mut self, claimant: &Client, claim: Claim) {
        if matches!(claim, Claim::Coordinate | Claim::Assume) {
            self.give(claimant.connection, Role::Passive);
        }
    }

    fn place_of(&self, client: &Client) -> Place {
        let node = self.session.client(client.connection).map_or(self.context.here, |(node, _)| node);
        Place { node: node.clone(), connection: client.connection }
    }

    /// Grants control to `client`: at once, or when the controller's node has stopped the controller.
    pub(super) fn grant_to(&mut self, client: &Client, provisional: bool, how: EpochEnd) -> Verdict {
        let place = self.place_of(client);
        let to = Controller { place, client: client.name().clone(), provisional, since: self.context.now };
        self.hand_over(Some(to), how)
    }

    /// Starts the epoch of `to` at once if the controller is stopped or there is none; otherwise starts a transfer.
    fn hand_over(&mut self, to: Option<Controller>, how: EpochEnd) -> Verdict {
        let Some(controller) = &self.session.core.controller else {
            self.begin_epoch(to, how);
            return Verdict::Granted;
        };
        let stopped = controller.place.node == *self.context.here
            && (how == EpochEnd::Resumed || self.is_flushed(controller))
            || self.is_cut_off(controller.place.connection)
            || self.session.client(controller.place.connection).is_none()
                && !self.session.rosters.contains_key(&controller.place.node)
            || self.context.lapsed.contains(&controller.place.node);
        if stopped {
            self.end_epoch(to, how);
            Verdict::Granted
        } else {
            self.session.core.transfer = Some(Transfer { to, how });
            self.emit(Effect::Count(Transition::Revoking));
            Verdict::Moving
        }
    }

    /// Whether this controller of this node has no frame left that may still pass.
    pub(super) fn is_flushed(&self, controller: &Controller) -> bool {
        let connection = controller.place.connection;
        // A controller that hands control over itself has no earlier frame under way.
        self.actor == Some(connection) || self.context.flushed == Some((connection, self.session.core.epoch))
    }

    /// Completes a transfer: the controller has been stopped.
    pub(super) fn complete_transfer(&mut self) {
        let Some(Transfer { to, how }) = self.session.core.transfer.take() else { return };
        // The next controller may have left in the meantime.
        let present = |place: &Place| self.session.client(place.connection).is_some();
        match to {
            Some(to) if present(&to.place) => self.end_epoch(Some(Controller { since: self.context.now, ..to }), how),
            Some(_) => self.give_up(),
            None => self.end_epoch(None, how),
        }
    }

    fn end_epoch(&mut self, to: Option<Controller>, how: EpochEnd) {
        if let Some(controller) = self.session.core.controller.take() {
            let Controller { client, place, .. } = controller;
            let (epoch, connection) = (self.session.core.epoch, place.connection);
            self.session.core.ended = Some(Ended { epoch, client, connection, how });
        }
        if how == EpochEnd::Released {
            self.emit(Effect::Count(Transition::Released));
        }
        self.begin_epoch(to, how);
    }

    fn begin_epoch(&mut self, to: Option<Controller>, how: EpochEnd) {
        let (now, core) = (self.context.now, &mut self.session.core);
        core.transfer = None;
        core.requests.clear();
        core.offer = None;
        core.changed_at = now;
        let granted = to.is_some();
        core.controller = to;
        if granted {
            core.epoch = core.epoch.next(now);
        }
        // A client that comes back on another socket changes nothing for the other clients.
        if how != EpochEnd::Resumed {
            let role = if granted { Role::Passive } else { Role::Connected };
            core.everyone = Assignment { role, change: core.everyone.change + 1 };
        }
        if granted {
            self.emit(Effect::Count(Transition::Granted));
        }
    }

    /// Gives control up: grants the oldest request that waits, or leaves the session without a controller.
    pub(super) fn give_up(&mut self) {
        // A requester whose socket is lost cannot control.
        let client = |request: &Request| self.session.client(request.place.connection);
        let here = |request: &&Request| client(request).is_some_and(|(_, client)| client.cut_off_at.is_none());
        let oldest = self.session.core.requests.iter().find(here).cloned();
        let to = oldest.map(|Request { place, client, .. }| Controller {
            place,
            client,
            provisional: false,
            since: self.context.now,
        });
        self.session.core.transfer = None;
        self.end_epoch(to, EpochEnd::Released);
    }

    pub(super) fn no_longer_provisional(&mut self) {
        if let Some(controller) = &mut self.session.core.controller {
            controller.provisional = false;
        }
    }
}
