//! Control leaves a client of this node: the states that it had sent before it could know are let through first.
//!
//! A controller with the handshake is sent a probe. Its pong shows that the relay has read all that it sent before.
//! Until then it is still the controller, in the document and for its states, and the transfer waits. A client without
//! the handshake confirms its loss by a frame of its own, and the relay drops what it sends until then: nothing is
//! waited for.

use super::output::{Output, Outputs};
use super::{Room, Step};
use crate::ids::{ConnectionId, Epoch, Millis, NodeId};
use crate::session::{Controller, Session};

/// How long the relay waits for the pong of a controller that is losing control, in milliseconds.
pub const FLUSH_TIMEOUT: Millis = 150;

/// A controller of this node that control is leaving, and that may have states under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flush {
    /// Its socket.
    connection: ConnectionId,
    /// The epoch that ends. It is also the number of the probe.
    epoch: Epoch,
    /// Everything that the client sent before the probe reached it has been read.
    done: bool,
}

impl<S, T> Room<S, T> {
    /// The controller that this document names, and its epoch, if it is a client of this node without frames that may
    /// still pass.
    pub(super) fn flushed(&self, session: &Session, here: &NodeId) -> Option<(ConnectionId, Epoch)> {
        let controller = session.core.controller.as_ref().filter(|controller| controller.place.node == *here)?;
        let flushed = self.is_flushed(controller, session);
        flushed.then_some((controller.place.connection, session.core.epoch))
    }

    fn is_flushed(&self, controller: &Controller, session: &Session) -> bool {
        let of = (controller.place.connection, session.core.epoch);
        let Some(member) = self.member(of.0).filter(|member| member.view.is_modern()) else { return true };
        let done = self.control.flush.filter(|flush| flush.done);
        done.is_some_and(|flush| (flush.connection, flush.epoch) == (member.connection, of.1))
    }

    /// Whether control leaves a client of this node whose states must be let through first.
    pub(super) fn must_be_flushed(&self, session: &Session, here: &NodeId) -> bool {
        session.core.transfer.is_some()
            && session.core.controller.as_ref().is_some_and(|controller| controller.place.node == *here)
            && self.flushed(session, here).is_none()
    }
}

impl<S, T, O: Outputs<S, T>> Step<'_, '_, S, T, O> {
    /// Stops the controller of this node that is losing control. Returns `true` if it is stopped and the transfer can
    /// go on.
    pub(super) fn stop_leaving(&mut self, session: &Session) -> bool {
        let ours = |controller: &&Controller| controller.place.node == *self.env.here;
        let leaving = session.core.transfer.as_ref().and(session.core.controller.as_ref()).filter(ours);
        let Some(controller) = leaving else { return false };
        if !self.room.must_be_flushed(session, self.env.here) {
            return true;
        }
        let (connection, epoch) = (controller.place.connection, session.core.epoch);
        let begun = self.room.control.flush.is_some_and(|flush| (flush.connection, flush.epoch) == (connection, epoch));
        if let Some(member) = self.room.member(connection).filter(|_| !begun) {
            self.out.put(Output::Probe(&member.socket, epoch.0));
            self.room.control.flush = Some(Flush { connection, epoch, done: false });
        }
        false
    }

    /// The client has read everything before the probe with this number, or takes too long.
    pub(super) fn pong(&mut self, connection: ConnectionId, number: u64) {
        let flush = self.room.control.flush.as_mut();
        let asked = flush.filter(|flush| flush.connection == connection && flush.epoch.0 == number);
        if asked.is_some_and(|flush| !std::mem::replace(&mut flush.done, true)) {
            self.reload();
        }
    }
}
