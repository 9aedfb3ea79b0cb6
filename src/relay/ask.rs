//! The relay asks the controller for its state when a client may have missed it (docs/decisions, 13).

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Relay;
use crate::broker::{Kind, Route, Target};
use crate::hub::{RoomState, View};
use crate::protocol::{FrameType, RELAY_CLIENT_ID, outgoing};
use crate::session::Session;

/// How long the relay waits for the controller's answer before it asks again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

impl Relay {
    /// Asks the controller for its state, on behalf of all clients that may have missed it. A controller of this node
    /// that may not send states now is asked later, because its answer would be refused. Nobody is asked again while an
    /// answer may be under way.
    pub(super) fn request_state(&self, state: &mut RoomState, session: &Session) {
        let Some(controller) = session.sending_controller().map(|controller| &controller.place) else { return };
        let now = Instant::now();
        let asked = |(connection, at): (_, Instant)| connection == controller.connection && now - at < ASK_AGAIN;
        if state.asked.is_some_and(asked) {
            return;
        }
        if let Some(member) = state.member(controller.connection) {
            if !self.drives(state, controller.connection) {
                return;
            }
            member.lock().ask(None, now);
            member.send(self.question(), FrameType::RequestSync, &self.inner.settings.queue);
        } else if let Some(member) = state.members.first() {
            let (source, target) = (member.connection, Target::Only(vec![controller.connection]));
            let (epoch, seq) = (session.core.epoch, member.lock().next_seq());
            let route = Route { source, epoch, seq, state_hash: 0, target, kind: Kind::RequestSync };
            self.publish(&controller.node, member.room.id, route, self.question());
        }
        state.asked = Some((controller.connection, now));
    }

    /// Handles a client of this node that may show an outdated state: the controller is asked now, or as soon as there
    /// is one.
    pub(super) fn bring_up_to_date(&self, state: &mut RoomState) {
        state.needs_resync = true;
        if let Some(view) = state.view.clone() {
            self.request_state(state, &view.session);
        }
    }

    /// Asks for the state as [`Relay::observe`] does after a loss, if this node's client is the controller.
    pub(super) fn request_own_state(&self, state: &mut RoomState) {
        let view = state.view.clone();
        let own = |view: &&View| {
            view.session.sending_controller().is_some_and(|controller| controller.place.node == *self.node())
        };
        if let Some(view) = view.as_ref().filter(own) {
            state.needs_resync = true;
            self.request_state(state, &view.session);
        }
    }

    /// Builds a `request_sync` of the relay's own.
    fn question(&self) -> Bytes {
        outgoing::frame(FrameType::RequestSync, RELAY_CLIENT_ID, Some(serde_json::json!({})), self.now())
    }
}
