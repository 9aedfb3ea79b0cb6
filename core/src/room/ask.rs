//! The relay asks the controller for its state when a client may have missed it (docs/decisions, 13).

use bytes::Bytes;

use super::Step;
use super::member::find;
use super::output::Outputs;
use crate::ids::Millis;
use crate::protocol::{FrameType, RELAY_CLIENT_ID, outgoing};
use crate::route::{Kind, Route, Target};
use crate::session::Session;

/// How long the relay waits for the controller's answer before it asks again, in milliseconds.
const ASK_AGAIN: Millis = 500;

impl<S, T, O: Outputs<S, T>> Step<'_, '_, S, T, O> {
    /// Asks the controller for its state, on behalf of all clients that may have missed it. A controller of this node
    /// that may not send states now is asked later, because its answer would be refused. Nobody is asked again while an
    /// answer may be under way.
    pub(super) fn request_state(&mut self, session: &Session) {
        let Some(place) = session.sending_controller().map(|controller| &controller.place) else { return };
        let now = self.env.now.local;
        let asked = self.room.stream.asked;
        if asked.is_some_and(|(connection, at)| connection == place.connection && now.saturating_sub(at) < ASK_AGAIN) {
            return;
        }
        let (drives, question) = (self.drives(place.connection), self.question());
        if let Some(member) = find(&mut self.room.members, place.connection) {
            if !drives {
                return;
            }
            member.states.ask(None, now);
            member.send(question, FrameType::RequestSync, self.out);
        } else if let Some(member) = self.room.members.first_mut() {
            let (source, seq) = (member.connection, member.next_seq());
            let (epoch, target) = (session.core.epoch, Target::Only(vec![place.connection]));
            let route = Route { source, epoch, seq, state_hash: 0, target, kind: Kind::RequestSync };
            self.publish(&place.node, route, question);
        } else {
            // Nobody here could get the answer.
            return;
        }
        self.room.stream.asked = Some((place.connection, now));
    }

    /// Handles a client of this node that may show an outdated state: the controller is asked now, or as soon as there
    /// is one.
    pub(super) fn bring_up_to_date(&mut self) {
        self.room.stream.needs_resync = true;
        if let Some(view) = self.room.known.view.clone() {
            self.request_state(&view.session);
        }
    }

    /// Asks for the state as after a loss, if the controller is a client of this node.
    pub(super) fn request_own_state(&mut self) {
        let Some(view) = self.room.known.view.clone() else { return };
        if view.session.sending_controller().is_some_and(|controller| controller.place.node == *self.env.here) {
            self.room.stream.needs_resync = true;
            self.request_state(&view.session);
        }
    }

    /// Builds a `request_sync` of the relay's own.
    fn question(&self) -> Bytes {
        let data = Some(serde_json::json!({}));
        outgoing::frame(FrameType::RequestSync, RELAY_CLIENT_ID, data, self.env.now.store)
    }
}
