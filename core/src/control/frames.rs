//! Role frames: the effect of each frame on the document (docs/protocol.md, "Frames" and "Roles").

use super::claim::{Claim, Verdict};
use super::{Decider, Direction, Effect, Intent, Stamp, StateKind};
use crate::ids::{ClientId, ConnectionId};
use crate::protocol::ErrorCode;
use crate::session::{Client, Controller, EpochEnd, Offer, Place, Role};

impl Decider<'_> {
    pub(super) fn frame(&mut self, connection: ConnectionId, alias: Option<&ClientId>, stamp: Stamp, intent: &Intent) {
        self.actor = Some(connection);
        self.speak(connection, alias);
        // A superseded socket, or one that is no longer in the session, has no say.
        let Some((_, sender)) = self.session.client(connection) else {
            return self.emit(Effect::Drop);
        };
        let sender = sender.clone();
        if self.context.now < self.session.core.doubtful_until && *intent != Intent::Speak {
            return self.reject(connection, ErrorCode::StoreUnavailable);
        }
        match (stamp, intent) {
            (_, Intent::Speak) => {}
            (Stamp::Named(Some(epoch)), _) if epoch < self.session.core.epoch => {
                return self.reject(connection, ErrorCode::StaleEpoch);
            }
            // Such a client coordinates only when it knows that it has no role, so that frame is current.
            (Stamp::Seen(Some(_)), Intent::Coordinate(_)) => {}
            (Stamp::Seen(Some(_)), _) if !self.session.controls(connection) => return self.emit(Effect::Drop),
            (Stamp::Named(_) | Stamp::Seen(_), _) => {}
        }
        match intent {
            Intent::Speak => {}
            Intent::Coordinate(Direction::Active) => {
                self.claim(&sender, Claim::Coordinate);
            }
            Intent::Coordinate(Direction::Passive) => self.coordinate_passive(&sender),
            Intent::Request => {
                self.claim(&sender, Claim::Request);
            }
            Intent::Offer(name) => self.offer(&sender, stamp, name),
            Intent::Accept(from) => self.accept(&sender, stamp, from.as_deref()),
            Intent::Decline(from) => self.decline(&sender, stamp, from.as_deref()),
            Intent::Release => self.release(&sender, stamp),
            Intent::State(state) => self.state(&sender, stamp, *state),
        }
    }

    /// Whether the sender is the controller, and whether a transfer is moving control away from it. At most one is
    /// true.
    fn drives(&self, sender: &Client) -> (bool, bool) {
        let controls = self.session.controls(sender.connection);
        let leaving = controls && self.session.core.transfer.is_some();
        (controls && !leaving, leaving)
    }

    /// Refuses or drops a frame of a controller that a transfer is moving control away from: the frame came too late.
    fn too_late(&mut self, sender: &Client, stamp: Stamp) {
        match stamp {
            Stamp::Named(_) => self.reject(sender.connection, ErrorCode::StaleEpoch),
            Stamp::Seen(_) => self.emit(Effect::Drop),
        }
    }

    fn coordinate_passive(&mut self, sender: &Client) {
        if self.session.controls(sender.connection) {
            self.give_up();
        }
        self.give(sender.connection, Role::Passive);
        if self.session.core.controller.is_some() {
            return;
        }
        let Some(candidate) = self.longest_connected_except(sender.connection) else { return };
        self.grant_to(&candidate, true, EpochEnd::Taken);
    }

    /// The client that becomes the controller provisionally: among the clients that have ever sent a frame, the one
    /// that has been connected longest. A client without a role comes before a follower. A client that is cut off comes
    /// last: it has control when it comes back, and any claim is granted until then.
    fn longest_connected_except(&self, except: ConnectionId) -> Option<Client> {
        let roles = self.session.roles();
        let willing = |client: &&Client| client.spoke && client.connection != except;
        let candidates = self.session.clients().map(|(_, client)| client).filter(willing);
        // `min_by_key` keeps the first of equals: of two clients that joined in the same millisecond, the first in the
        // roster.
        let follows = |client: &Client| roles.get(&client.connection) == Some(&Role::Passive);
        let rank = |client: &&Client| (client.cut_off_at.is_some(), follows(client), client.joined_at);
        candidates.min_by_key(rank).cloned()
    }

    fn offer(&mut self, sender: &Client, stamp: Stamp, name: &ClientId) {
        let (drives, leaving) = self.drives(sender);
        if leaving {
            return self.too_late(sender, stamp);
        }
        if !drives {
            if matches!(stamp, Stamp::Named(_)) {
                return self.reject(sender.connection, ErrorCode::NotActive);
            }
            match self.claim(sender, Claim::Assume) {
                Verdict::Granted => {}
                Verdict::Moving => return self.emit(Effect::HoldFrame),
                Verdict::Waiting | Verdict::Refused => return,
            }
        }
        self.no_longer_provisional();
        self.session.core.offer = Some(Offer { client: name.clone(), at: self.context.now, declined: Vec::new() });
        self.emit(Effect::ForwardToOthers);
    }

    fn accept(&mut self, sender: &Client, stamp: Stamp, from: Option<&str>) {
        let (drives, leaving) = self.drives(sender);
        if leaving {
            return self.too_late(sender, stamp);
        }
        if drives {
            return self.accept_request(sender, from);
        }
        let take = match stamp {
            Stamp::Named(_) => Claim::Take,
            Stamp::Seen(_) => Claim::Assume,
        };
        let Some(controller) = self.session.core.controller.clone() else {
            // Without a controller the frame is a claim, whatever it names.
            self.claim(sender, take);
            return;
        };
        if self.session.awaits(sender.connection) {
            return;
        }
        if self.session.core.transfer.is_none() && self.offer_is_open_to(sender, from) {
            if self.grant_to(sender, false, EpochEnd::Taken) != Verdict::Refused {
                self.emit(Effect::ForwardToLoser(controller.place));
            }
            return;
        }
        let names_controller = from.is_some_and(|name| self.is_called(&controller, name));
        let names_epoch = stamp == Stamp::Named(Some(self.session.core.epoch));
        if self.session.core.transfer.is_some() || !(names_controller || names_epoch) {
            if take == Claim::Assume {
                self.give(sender.connection, Role::Passive);
            }
            return self.reject(sender.connection, ErrorCode::StaleEpoch);
        }
        if matches!(self.claim(sender, take), Verdict::Granted | Verdict::Moving) {
            self.emit(Effect::ForwardToLoser(controller.place));
        }
    }

    /// An `accept_control` of the controller: it grants the request of that name, or claims the controller's own role.
    fn accept_request(&mut self, sender: &Client, from: Option<&str>) {
        let named = |name: &str| {
            let requests = self.session.core.requests.iter();
            let mut clients = requests.filter_map(|request| self.session.client(request.place.connection));
            clients.find(|(_, client)| client.is_called(name)).map(|(_, client)| client.clone())
        };
        if let Some(requester) = from.and_then(named) {
            self.grant_to(&requester, false, EpochEnd::Taken);
        } else if from.is_none_or(|name| sender.is_called(name)) {
            self.claim(sender, Claim::Take);
        } else {
            self.reject(sender.connection, ErrorCode::StaleEpoch);
        }
    }

    fn offer_is_open_to(&self, sender: &Client, from: Option<&str>) -> bool {
        let (Some(offer), Some(name)) = (&self.session.core.offer, from) else { return false };
        let controller = self.session.core.controller.as_ref();
        let named =
            offer.client.as_str() == name || controller.is_some_and(|controller| self.is_called(controller, name));
        named && !offer.declined.contains(&sender.connection)
    }

    fn is_called(&self, controller: &Controller, name: &str) -> bool {
        let client = self.session.client(controller.place.connection);
        controller.client.as_str() == name || client.is_some_and(|(_, client)| client.is_called(name))
    }

    fn decline(&mut self, sender: &Client, stamp: Stamp, from: Option<&str>) {
        let (drives, leaving) = self.drives(sender);
        if leaving {
            return self.too_late(sender, stamp);
        }
        let ended = if drives { self.decline_request(from) } else { self.decline_offer(sender, from) };
        if ended {
            self.emit(Effect::ForwardToOthers);
        } else {
            self.reject(sender.connection, ErrorCode::NothingPending);
        }
    }

    fn decline_request(&mut self, from: Option<&str>) -> bool {
        let Some(name) = from else { return false };
        let called =
            |place: &Place| self.session.client(place.connection).is_some_and(|(_, client)| client.is_called(name));
        let requests = &self.session.core.requests;
        let found = requests.iter().position(|request| request.client.as_str() == name || called(&request.place));
        let Some(index) = found else { return false };
        self.session.core.requests.remove(index);
        self.no_longer_provisional();
        true
    }

    fn decline_offer(&mut self, sender: &Client, from: Option<&str>) -> bool {
        let open = self.offer_is_open_to(sender, from);
        let present: Vec<ConnectionId> = self.session.clients().map(|(_, client)| client.connection).collect();
        if let (true, Some(offer)) = (open, &mut self.session.core.offer) {
            offer.declined.retain(|connection| present.contains(connection));
            offer.declined.push(sender.connection);
        }
        open
    }

    fn release(&mut self, sender: &Client, stamp: Stamp) {
        match self.drives(sender) {
            (_, true) => self.too_late(sender, stamp),
            // The news of the epoch's end carries the frame to the other clients.
            (true, _) => self.give_up(),
            (false, _) => self.reject(sender.connection, ErrorCode::NotActive),
        }
    }

    fn state(&mut self, sender: &Client, stamp: Stamp, state: StateKind) {
        let (drives, leaving) = self.drives(sender);
        match state {
            _ if leaving => self.too_late(sender, stamp),
            _ if drives => {
                if state == StateKind::Drive {
                    self.no_longer_provisional();
                }
                self.emit(Effect::PassState);
            }
            StateKind::Answer => self.emit(Effect::PassAnswer),
            StateKind::InitialPush => self.emit(Effect::PassState),
            StateKind::Drive if matches!(stamp, Stamp::Named(_)) => {
                self.reject(sender.connection, ErrorCode::NotActive);
            }
            StateKind::Drive => match self.claim(sender, Claim::Assume) {
                Verdict::Granted => self.emit(Effect::PassState),
                Verdict::Moving => self.emit(Effect::HoldFrame),
                Verdict::Waiting | Verdict::Refused => {}
            },
        }
    }
}
