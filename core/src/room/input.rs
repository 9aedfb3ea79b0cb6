//! What can happen to a room, and what a step needs besides.

use std::collections::BTreeSet;

use crate::control::{Join, Rules};
use crate::ids::{ConnectionId, NodeId, ResumeToken, SessionId};
use crate::protocol::{ErrorCode, Frame};
use crate::route::Body;
use crate::stored::{Committed, Loaded};
use crate::trust::{Now, Trust};

/// Where and when a step is taken.
pub struct Env<'a> {
    /// The session of the room.
    pub session: SessionId,
    /// The node.
    pub here: &'a NodeId,
    /// The time on both clocks.
    pub now: Now,
    /// What the node believes at this moment.
    pub trust: Trust,
    /// The limits of the rules.
    pub rules: &'a Rules,
    /// Draws 128 bits that nobody can guess and that are never drawn again.
    pub draw: &'a mut dyn FnMut() -> u128,
}

impl std::fmt::Debug for Env<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env").field("here", self.here).field("now", &self.now).finish_non_exhaustive()
    }
}

impl Env<'_> {
    pub(super) fn token(&mut self) -> ResumeToken {
        ResumeToken::from_bits((self.draw)())
    }
}

/// One thing that happens to a room.
#[allow(clippy::large_enum_variant, reason = "an input lives for one step")]
#[derive(Debug)]
pub enum Input<S, T> {
    /// A socket asks to join.
    Join {
        /// What it presents.
        join: Join,
        /// The driver's handle of it.
        socket: S,
        /// Who gets the reply.
        ticket: T,
    },
    /// A socket has closed.
    Leave {
        /// The socket.
        connection: ConnectionId,
        /// Whether it was lost without a goodbye, so that its client may come back.
        lost: bool,
        /// Who gets the reply.
        ticket: T,
    },
    /// The session is to be deleted.
    Delete {
        /// Who gets the reply.
        ticket: T,
    },
    /// A client sent a frame. If [`super::Room::is_deciding`] says so, the driver reads no other frame of this client before
    /// [`super::Output::Decided`].
    Frame {
        /// Its socket.
        connection: ConnectionId,
        /// The frame.
        frame: Frame,
    },
    /// A client sent what is not a frame.
    Malformed {
        /// Its socket.
        connection: ConnectionId,
        /// Why it is refused.
        code: ErrorCode,
    },
    /// A client answered a probe, or took too long.
    Pong {
        /// Its socket.
        connection: ConnectionId,
        /// The number of the probe.
        number: u64,
    },
    /// A message of another node.
    Message {
        /// The node.
        from: NodeId,
        /// The content.
        body: Body,
    },
    /// Another node missed messages of this one.
    Gap {
        /// The node.
        to: NodeId,
    },
    /// Something may be due.
    Tick,
    /// The document has to be read again, as soon as possible.
    Reload,
    /// Nothing that was known is certain any more: the node has a new lease.
    Distrust {
        /// The store has lost data, so it may have an older document now.
        data_lost: bool,
    },
    /// The store answered [`super::Request::Load`]. The driver has set its clock and its observer by the answer.
    Loaded(Loaded),
    /// The store answered [`super::Request::LookAgain`]: these nodes are dead.
    StillLapsed(BTreeSet<NodeId>),
    /// The store answered [`super::Request::Commit`].
    Committed(Committed),
    /// The store answered [`super::Request::ReadLineage`]. The driver's observer knows the lineage.
    LineageRead,
    /// The store answered [`super::Request::Create`].
    Created,
    /// The pause is over.
    Resumed,
    /// The store did not answer the open request. It may have carried it out.
    Failed,
    /// The store answered [`super::Output::Touch`]: whether it has the document; `None` if it did not answer.
    Touched {
        /// The activity that was reported.
        activity: crate::session::Activity,
        /// Whether the store has the document.
        found: Option<bool>,
    },
}
