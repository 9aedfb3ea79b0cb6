//! What a step asks its driver to do.

use std::time::Duration;

use bytes::Bytes;

use crate::ids::{ClientId, ConnectionId, Epoch, NodeId, SessionId};
use crate::protocol::{CloseReason, ErrorCode, FrameType};
use crate::route::Body;
use crate::session::{Activity, Role, Session};
use crate::stored::Write;

/// Takes the outputs of a step, in order, while the step runs. `S` is the driver's handle of a socket, `T` that of a
/// caller who waits for a reply.
pub trait Outputs<S, T> {
    /// Performs an output, or keeps it to be performed after the outputs before it.
    fn put(&mut self, output: Output<'_, S, T>);

    /// Removes the unwritten frames of this type from a socket's queue. Returns how many there were.
    fn withdraw(&mut self, socket: &S, kind: FrameType) -> usize;
}

/// What a room waits for before it goes on. At most one request of a room is open at a time. The comment names the
/// input that answers it; a store that does not answer is [`super::Input::Failed`].
#[derive(Clone, Debug)]
pub enum Request {
    /// Read the document: [`super::Input::Loaded`].
    Load,
    /// Look which of these nodes are dead, now that the document is read: [`super::Input::StillLapsed`].
    LookAgain(Vec<NodeId>),
    /// Write the document: [`super::Input::Committed`].
    Commit(Write),
    /// Ask the store for its lineage: [`super::Input::LineageRead`].
    ReadLineage,
    /// Create the document, and keep it for so long: [`super::Input::Created`].
    Create(Session, Duration),
    /// Wait a moment before the next attempt, longer for a higher number of it: [`super::Input::Resumed`].
    Pause(u32),
}

/// One thing to do. The comment names the input that answers an output, if there is one.
#[derive(Debug)]
pub enum Output<'a, S, T> {
    /// Do this, and answer. It is boxed because it is rare and large, and most outputs are small and many.
    Ask(Box<Request>),
    /// Report the activity of this node's clients, and keep the document for so long: [`super::Input::Touched`].
    Touch(Activity, Duration),
    /// Send this to a node's inbox.
    Publish(&'a NodeId, Body),
    /// Queue a frame for a socket.
    Send(&'a S, Item),
    /// Close a socket, once everything that is queued for it is written.
    Close(&'a S, CloseReason),
    /// Ask a socket to show that everything that it sent before has been read: [`super::Input::Pong`], also if it does
    /// not answer within [`super::FLUSH_TIMEOUT`].
    Probe(&'a S, u64),
    /// Another client has left: hold what a client without the handshake must not answer now.
    HoldAfterLeave(&'a S),
    /// The client has done the handshake: hold nothing for it any more.
    HoldNothing(&'a S),
    /// The client's last frame is decided, so its next one may be read.
    Decided(&'a S),
    /// Answer a caller.
    Reply(T, Reply),
    /// Tell an embedding application.
    Emit(RelayEvent),
    /// Count something.
    Count(Counted),
    /// The store did not answer, so the waiting jobs are not decided. `first`: it had answered before.
    Undecided {
        /// Whether the store had answered before.
        first: bool,
    },
}

/// A frame for one socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Item {
    /// The text of the frame, UTF-8.
    pub text: Bytes,
    /// Its type.
    pub kind: FrameType,
    /// The source and epoch of the state, if a newer state may replace it.
    pub state_of: Option<(ConnectionId, Epoch)>,
}

/// The answer to a join, a leave or a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// It is decided, and all clients are told.
    Done,
    /// The socket has joined.
    Joined {
        /// Its client came back to a place that it had.
        resumed: bool,
    },
    /// The socket is refused.
    Closed(CloseReason),
    /// The session does not exist.
    Missing,
    /// The store cannot be reached.
    Unavailable,
}

/// Something that is counted in the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// A frame was dropped.
    Dropped,
    /// A frame of this client was refused.
    Refused(ErrorCode),
    /// A change of control, or a refused claim.
    Control(crate::control::Transition),
}

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
