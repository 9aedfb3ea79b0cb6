//! A socket in a room, with the relay's data about its client.

use bytes::Bytes;

use super::answers::Answers;
use super::output::{Item, Output, Outputs};
use super::parcel::Parcel;
use super::recent::RecentStates;
use crate::dialect::ClientView;
use crate::ids::{ClientId, ConnectionId, Millis, Seq};
use crate::protocol::{Frame, FrameType};
use crate::session::Client;

/// A socket in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<S> {
    /// The id of the socket.
    pub connection: ConnectionId,
    /// The driver's handle of it.
    pub socket: S,
    /// The client as the document last showed it, from which its place can be restored.
    pub client: Client,
    /// What the client was last told, and what it believes.
    pub view: ClientView,
    /// The states that the client has seen and sent.
    pub states: Answers,
    /// The client has sent a frame, and the document has recorded that.
    pub spoke: bool,
    /// A newer socket of the same client has its place: this socket is ignored and gets nothing.
    pub superseded: bool,
    /// The number of the client's last frame.
    pub seq: Seq,
    /// The frame by which another client took control from this one, until this one is told.
    pub accepted: Option<(ConnectionId, Bytes)>,
}

/// The member of this socket, while the rest of its room stays free to use.
pub(super) fn find<S>(members: &mut [Member<S>], connection: ConnectionId) -> Option<&mut Member<S>> {
    members.iter_mut().find(|member| member.connection == connection)
}

impl<S> Member<S> {
    pub(super) fn new(socket: S, client: Client) -> Self {
        Self {
            connection: client.connection,
            socket,
            view: ClientView::of(&client),
            client,
            states: Answers::default(),
            spoke: false,
            superseded: false,
            seq: Seq::default(),
            accepted: None,
        }
    }

    /// The id by which other clients know it.
    pub(super) fn name(&self) -> &ClientId {
        self.client.name()
    }

    /// Returns the number of the client's next frame.
    pub(super) fn next_seq(&mut self) -> Seq {
        self.seq.0 += 1;
        self.seq
    }

    /// Whether a frame of the client waits until the client gets control.
    pub(super) fn waits_for_control(&self) -> bool {
        self.view.legacy().is_some_and(|legacy| legacy.held.is_some())
    }

    /// Takes the frame that waits until the client gets control.
    pub(super) fn take_held(&mut self) -> Option<Frame> {
        self.view.legacy_mut().and_then(|legacy| legacy.held.take())
    }

    /// Notes an answer of the client. Returns `true` if the client has to be told its role: one without the handshake may
    /// have taken control by its first state.
    pub(super) fn doubts_answer(&mut self, answer: &Frame, passed: &RecentStates) -> bool {
        self.states.is_unsure(answer, passed) && self.view.doubts_answer()
    }

    /// Whether this frame is dropped, because the client may have sent it before it knew that it lost control.
    pub(super) fn drops(&self, kind: FrameType, now: Millis) -> bool {
        self.view.legacy().is_some_and(|legacy| legacy.drops(kind, now))
    }

    /// Notes a frame that did not pass at once: if it is a state, its sender takes it for the present one.
    pub(super) fn note_sent(&mut self, frame: &Frame) {
        if frame.kind == FrameType::StateUpdate {
            self.states.sent = Some(frame.data_hash());
        }
    }

    /// Queues a forwarded frame.
    pub(super) fn deliver<T>(&mut self, parcel: &mut Parcel, out: &mut impl Outputs<S, T>) {
        // A client that waits for control with its own state no longer needs the states of the client that it takes
        // control from.
        let overtaken = parcel.state_of.is_some() && self.waits_for_control();
        if self.superseded || overtaken {
            return;
        }
        if let Some(hash) = parcel.state_hash {
            self.states.note_state(hash);
            self.states.updated |= parcel.state_of.is_some();
        }
        let state_of = parcel.state_of.map(|source| (source, parcel.epoch));
        let text = parcel.for_member(self.view.is_modern());
        out.put(Output::Send(&self.socket, Item { text, kind: parcel.kind, state_of }));
    }

    /// Queues a frame of the relay's own.
    pub(super) fn send<T>(&self, text: Bytes, kind: FrameType, out: &mut impl Outputs<S, T>) {
        out.put(Output::Send(&self.socket, Item { text, kind, state_of: None }));
    }
}
