//! Events for an embedding application.

use crate::ids::{ClientId, SessionId};
use crate::session::Role;

/// An event in a session, seen from this node. If a session has clients on several nodes, each of them sees its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayEvent {
    /// This node created a session.
    SessionCreated(SessionId),
    /// A session with clients on this node has expired.
    SessionExpired(SessionId),
    /// A session was deleted that has clients on this node, or that this node was asked to delete.
    SessionDeleted(SessionId),
    /// A client joined a session, on any node.
    ClientConnected(SessionId, ClientId),
    /// A client left a session, on any node.
    ClientDisconnected(SessionId, ClientId),
    /// A client has a new role.
    RoleChanged(SessionId, ClientId, Role),
    /// Control moved from one client to another.
    ControlTransferred {
        /// The session.
        session: SessionId,
        /// The controller before.
        from: ClientId,
        /// The controller now.
        to: ClientId,
    },
}
