//! Whoever drives is asked for its state when somebody may have missed it (docs/decisions, 13).

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Relay;
use crate::broker::{Kind, Route, Target};
use crate::hub::{RoomState, View};
use crate::protocol::{FrameType, RELAY_CLIENT_ID, outgoing};
use crate::session::Session;

/// How long the answer of whoever drives may be under way.
const ASK_AGAIN: Duration = Duration::from_millis(500);

impl Relay {
    /// Asks whoever drives for the state, on behalf of all who may have missed it. A driver of this node that may not drive
    /// now is asked later, for its answer would be refused; and nobody is asked again while the answer may be under way.
    pub(super) fn request_state(&self, state: &mut RoomState, session: &Session) {
        let Some(controller) = session.driver().map(|controller| &controller.place) else { return };
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

    /// A client here may show a state that is out of date: whoever drives is asked, or will be when somebody does.
    pub(super) fn bring_up_to_date(&self, state: &mut RoomState) {
        state.needs_resync = true;
        if let Some(view) = state.view.clone() {
            self.request_state(state, &view.session);
        }
    }

    /// As [`Relay::observe`] does when something was missed, if this node's client drives.
    pub(super) fn request_own_state(&self, state: &mut RoomState) {
        let view = state.view.clone();
        let own = |view: &&View| view.session.driver().is_some_and(|controller| controller.place.node == *self.node());
        if let Some(view) = view.as_ref().filter(own) {
            state.needs_resync = true;
            self.request_state(state, &view.session);
        }
    }

    /// A `request_sync` of the relay's own.
    fn question(&self) -> Bytes {
        outgoing::frame(FrameType::RequestSync, RELAY_CLIENT_ID, Some(serde_json::json!({})), self.now())
    }
}
