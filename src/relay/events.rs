//! What an embedding application can listen to.

use crate::ids::{ClientId, SessionId};
use crate::session::Role;

/// Something that happened in a session, seen from this node. Events of a session with clients on several nodes are
/// seen on each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayEvent {
    /// This node created a session.
    SessionCreated(SessionId),
    /// A session with clients on this node has expired.
    SessionExpired(SessionId),
    /// A session with clients on this node, or on this node's word, was deleted.
    SessionDeleted(SessionId),
    /// A client joined a session, on whichever node.
    ClientConnected(SessionId, ClientId),
    /// A client left a session, on whichever node.
    ClientDisconnected(SessionId, ClientId),
    /// A client has another role.
    RoleChanged(SessionId, ClientId, Role),
    /// Control went from one client to another.
    ControlTransferred {
        /// In which session.
        session: SessionId,
        /// Who drove.
        from: ClientId,
        /// Who drives.
        to: ClientId,
    },
}
