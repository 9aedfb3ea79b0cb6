//! Control leaves a client of this node: the states that it had sent before it could know are let through first.
//!
//! A controller with the handshake is sent a ping. Its pong proves that the relay has read all that it sent before. Until
//! then it is still the controller, in the document and for its states, and the transfer waits. A client without the
//! handshake confirms its loss by a frame of its own, and the relay drops what it sends until then: nothing is waited for.

use std::sync::Arc;
use std::time::Duration;

use super::Relay;
use crate::hub::{Flush, Member, Room, RoomState};
use crate::ids::{ConnectionId, Epoch, SessionId};
use crate::session::{Controller, Session};

/// How long the relay waits for the pong of a controller that is losing control.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(150);

impl Relay {
    /// The controller of this node that was flushed last, and its epoch.
    pub(super) fn flushed(&self, id: SessionId) -> Option<(ConnectionId, Epoch)> {
        let room = self.inner.hub.find(id)?;
        let flush = room.lock().flush?;
        flush.done.then_some((flush.connection, flush.epoch))
    }

    /// Whether control leaves a client of this node whose states must be let through first.
    pub(super) fn must_be_flushed(&self, state: &RoomState, session: &Session) -> bool {
        let leaving = session.core.transfer.as_ref().and(session.core.controller.as_ref());
        let flushed = |controller: &Controller| {
            let done = state.flush.filter(|flush| flush.done);
            done.is_some_and(|flush| {
                (flush.connection, flush.epoch) == (controller.place.connection, session.core.epoch)
            })
        };
        leaving.is_some_and(|controller| {
            let connection = controller.place.connection;
            let modern = session.client(connection).is_some_and(|(_, client)| client.modern);
            controller.place.node == *self.node()
                && modern
                && state.member(connection).is_some()
                && !flushed(controller)
        })
    }

    /// Stops the controller of this node that is losing control. Returns `true` if it is stopped and the transfer can
    /// go on.
    pub(super) fn stop_leaving(&self, state: &mut RoomState, session: &Session) -> bool {
        let ours = |controller: &&Controller| controller.place.node == *self.node();
        let leaving = session.core.transfer.as_ref().and(session.core.controller.as_ref()).filter(ours);
        let Some(controller) = leaving else { return false };
        if !self.must_be_flushed(state, session) {
            return true;
        }
        let (connection, epoch) = (controller.place.connection, session.core.epoch);
        let begun = state.flush.is_some_and(|flush| (flush.connection, flush.epoch) == (connection, epoch));
        if let Some(member) = state.member(connection).filter(|_| !begun) {
            let (relay, member) = (self.clone(), member.clone());
            member.outbound.probe(epoch.0);
            state.flush = Some(Flush { connection, epoch, done: false });
            self.inner.tasks.spawn(async move {
                tokio::time::sleep(FLUSH_TIMEOUT).await;
                relay.on_pong(&member, epoch.0);
            });
        }
        false
    }

    /// The client has read everything before the probe with this number, or takes too long.
    pub fn on_pong(&self, member: &Arc<Member>, number: u64) {
        let room: &Room = &member.room;
        let mut state = room.lock();
        let asked =
            state.flush.as_mut().filter(|flush| flush.connection == member.connection && flush.epoch.0 == number);
        if let Some(flush) = asked
            && !std::mem::replace(&mut flush.done, true)
        {
            drop(state);
            self.refresh(room);
        }
    }
}
