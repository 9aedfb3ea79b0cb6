//! A client's frames. The states of the controller pass at once; frames that need a decision become jobs.

use super::member::find;
use super::output::{Counted, Output, Outputs};
use super::work::Cause;
use super::{LocalController, Step};
use crate::control::{Direction, Event, Intent, StateKind};
use crate::dialect::Legacy;
use crate::ids::{ClientId, ConnectionId};
use crate::protocol::{CloseReason, ErrorCode, Frame, FrameType, PROTOCOL_VERSION, RELAY_CLIENT_ID, outgoing};
use crate::route::Kind;

impl<S, T, O: Outputs<S, T>> Step<'_, '_, S, T, O> {
    pub(super) fn frame(&mut self, connection: ConnectionId, frame: Frame) {
        let now = self.env.now.local;
        let Some(member) = self.room.member(connection) else { return };
        if member.superseded {
            return self.count(Counted::Dropped);
        }
        let spoke = member.spoke;
        let dropped = member.drops(frame.kind, now);
        // Acknowledgements that a client owes from before its grant, perhaps on a dead socket, do not count against a
        // controller.
        if dropped && self.room.local_controller_at(connection).is_none() {
            return self.drop_frame(connection, &frame);
        }
        match frame.kind {
            FrameType::StateUpdate if spoke => self.state(connection, frame),
            FrameType::RequestSync | FrameType::RoleChanged | FrameType::Unknown if spoke => {
                self.forward(connection, &frame);
            }
            FrameType::AssignSyncDirection
            | FrameType::ClientConnected
            | FrameType::ClientDisconnected
            | FrameType::ProtocolAck
            | FrameType::ProtocolPong
            | FrameType::Rejected
            | FrameType::Error => self.reject(connection, ErrorCode::ReservedType, frame.kind.wire()),
            FrameType::ProtocolHandshake if spoke => {
                self.reject(connection, ErrorCode::HandshakeRefused, frame.kind.wire());
            }
            FrameType::ProtocolHandshake => self.handshake(connection, &frame),
            FrameType::ProtocolPing => self.answer_ping(connection),
            FrameType::ConfirmTransfer => self.confirmed(connection, frame, spoke),
            FrameType::StateUpdate
            | FrameType::CoordinateSyncDirection
            | FrameType::RequestControl
            | FrameType::OfferControl
            | FrameType::AcceptControl
            | FrameType::DeclineControl
            | FrameType::ReleaseControl
            | FrameType::RequestSync
            | FrameType::RoleChanged
            | FrameType::Unknown => self.role_frame(connection, frame),
        }
    }

    /// Drops a frame that its sender has sent before it could know that it lost control.
    pub(super) fn drop_frame(&mut self, connection: ConnectionId, frame: &Frame) {
        if let Some(member) = self.room.member_mut(connection) {
            member.note_sent(frame);
        }
        self.count(Counted::Dropped);
    }

    /// Handles an old client's acknowledgement of its loss of control. It can also be the client's first frame.
    fn confirmed(&mut self, connection: ConnectionId, frame: Frame, spoke: bool) {
        let now = self.env.now.local;
        if let Some(member) = self.room.member_mut(connection) {
            let may_be_back = member.view.legacy_mut().is_some_and(Legacy::acknowledge);
            let pending = member.view.legacy().is_some_and(|legacy| legacy.acks.are_pending(now));
            // The client shows what it sent while it did not know of its loss.
            if may_be_back || (!pending && member.states.is_ahead()) {
                self.bring_up_to_date();
            }
        }
        if !spoke {
            self.role_frame(connection, frame);
        }
    }

    fn handshake(&mut self, connection: ConnectionId, frame: &Frame) {
        if frame.protocol_version.is_none_or(|version| version == PROTOCOL_VERSION) {
            let token = self.env.token();
            let event = Event::Handshake { connection, resume: token.digest() };
            return self.submit(event, Cause::Handshake(token), None);
        }
        let ack = serde_json::json!({
            "type": "protocol_ack", "accepted": false, "protocol_version": PROTOCOL_VERSION,
            "timestamp": self.env.now.store, "error": format!("this relay speaks protocol version {PROTOCOL_VERSION}"),
        });
        if let Some(member) = self.room.member(connection) {
            member.send(ack.to_string().into(), FrameType::ProtocolAck, self.out);
            self.out.put(Output::Close(&member.socket, CloseReason::UnsupportedVersion));
        }
    }

    /// Answers an application-level ping. A page does not see the pings of the socket and asks in this way. The ping is
    /// no activity, so that idle clients do not keep a session alive.
    fn answer_ping(&mut self, connection: ConnectionId) {
        if let Some(member) = self.room.member(connection) {
            let text = outgoing::frame(FrameType::ProtocolPong, RELAY_CLIENT_ID, None, self.env.now.store);
            member.send(text, FrameType::ProtocolPong, self.out);
        }
    }

    /// The hot path: handles a state of the ACTIVE client with this node's own data, without the store.
    fn state(&mut self, connection: ConnectionId, frame: Frame) {
        let now = self.env.now.local;
        let passed = &self.room.stream.passed;
        let Some(member) = self.room.member(connection) else { return };
        let modern = member.view.is_modern();
        let answer = member.states.is_answer(&frame, modern, passed, now);
        if let Some(controller) = self.room.local_controller_at(connection) {
            return self.controllers_state(&controller, frame, modern, answer);
        }
        let controls = self.room.controls(connection);
        if !controls && answer {
            return self.followers_answer(connection, &frame);
        }
        if !controls && modern && member.states.initial_push != Some(self.room.epoch()) {
            let view = self.room.known.view.as_ref();
            let stale = frame.epoch.zip(view).is_some_and(|(epoch, view)| epoch < view.session.core.epoch);
            let code = if stale { ErrorCode::StaleEpoch } else { ErrorCode::NotActive };
            if let Some(member) = self.room.member_mut(connection) {
                member.note_sent(&frame);
            }
            // The client shows its own state, so it is sent the true one with the next tick if none passes until then.
            self.room.stream.needs_resync = true;
            return self.reject(connection, code, frame.kind.wire());
        }
        self.role_frame(connection, frame);
    }

    fn controllers_state(&mut self, controller: &LocalController, frame: Frame, modern: bool, answer: bool) {
        let (connection, hash) = (controller.connection, frame.data_hash());
        let stale = modern && frame.epoch.is_some_and(|epoch| epoch < controller.epoch);
        if !self.drives(connection) || stale || (controller.provisional && !answer) {
            return self.role_frame(connection, frame);
        }
        let Some(member) = self.room.member_mut(connection) else { return };
        // The client may show a state that was on its way to it when it sent this one. An answer that repeats that state
        // may have been sent before it, too.
        let crossed = match answer {
            true => member.states.last.is_some_and(|last| last != hash),
            false => std::mem::take(&mut member.states.may_cross),
        };
        member.states.may_cross &= !crossed;
        member.states.drove(hash);
        // The answer to its earlier question is outdated now.
        member.states.updated |= !answer;
        let seq = member.next_seq();
        self.note_activity(!answer);
        self.pass(connection, &frame, Kind::State, seq);
        if crossed {
            self.room.stream.asked = None;
            self.request_own_state();
        }
    }

    fn followers_answer(&mut self, connection: ConnectionId, frame: &Frame) {
        let Some(member) = find(&mut self.room.members, connection) else { return };
        let unsure = member.doubts_answer(frame, &self.room.stream.passed);
        let askers = member.states.answered();
        member.states.note_answer(frame.data_hash());
        let seq = member.next_seq();
        self.note_activity(false);
        self.pass_answer(connection, frame, &askers, seq);
        if unsure {
            self.reload();
        }
    }

    /// Forwards a frame that does not affect roles to all other clients.
    fn forward(&mut self, connection: ConnectionId, frame: &Frame) {
        let kind = if frame.kind == FrameType::RequestSync { Kind::RequestSync } else { Kind::Other };
        self.note_activity(false);
        let Some(member) = self.room.member_mut(connection) else { return };
        if kind == Kind::RequestSync {
            member.states.updated = false;
        }
        let seq = member.next_seq();
        self.pass(connection, frame, kind, seq);
    }

    /// Forwards the first frame of a client if it does not affect roles, once the document has the client.
    pub(super) fn forward_first(&mut self, connection: ConnectionId, frame: &Frame) {
        let superseded = self.room.member(connection).is_none_or(|member| member.superseded);
        match frame.kind {
            FrameType::RequestSync | FrameType::RoleChanged | FrameType::Unknown if !superseded => {
                self.forward(connection, frame);
            }
            _ => {}
        }
    }

    /// Handles a frame that the rules decide on, or the first frame of its client.
    fn role_frame(&mut self, connection: ConnectionId, frame: Frame) {
        if frame.kind == FrameType::CoordinateSyncDirection {
            if direction(&frame).is_none() {
                return self.reject(connection, ErrorCode::MalformedFrame, frame.kind.wire());
            }
            if let Some(member) = find(&mut self.room.members, connection)
                && let Some(legacy) = member.view.legacy_mut()
            {
                let withdrawn = self.out.withdraw(&member.socket, FrameType::AcceptControl);
                legacy.chooses(withdrawn);
            }
        }
        self.decide_frame(connection, frame);
    }

    /// Submits a frame to the rules.
    pub(super) fn decide_frame(&mut self, connection: ConnectionId, frame: Frame) {
        let alias = frame.client_id.as_deref().and_then(ClientId::parse);
        let Some(intent) = self.intent(connection, &frame, alias.as_ref()) else { return };
        let epoch = self.room.controls(connection).then(|| self.room.epoch());
        let Some(member) = self.room.member(connection) else { return };
        let stamp = member.view.stamp(&frame, epoch);
        self.submit(Event::Frame { connection, alias, stamp, intent }, Cause::Frame(frame), None);
    }

    /// The frame's intent for the rules.
    fn intent(&mut self, connection: ConnectionId, frame: &Frame, alias: Option<&ClientId>) -> Option<Intent> {
        let at = (self.room.epoch(), self.env.now.local);
        let passed = &self.room.stream.passed;
        let member = find(&mut self.room.members, connection)?;
        Some(match frame.kind {
            FrameType::CoordinateSyncDirection => Intent::Coordinate(direction(frame)?),
            FrameType::RequestControl => Intent::Request,
            FrameType::OfferControl => Intent::Offer(alias.unwrap_or_else(|| member.name()).clone()),
            FrameType::AcceptControl => Intent::Accept(frame.role_data().from_client_id),
            FrameType::DeclineControl => Intent::Decline(frame.role_data().from_client_id),
            FrameType::ReleaseControl => Intent::Release,
            FrameType::StateUpdate => {
                let modern = member.view.is_modern();
                let kind = member.states.classify(frame, modern, passed, at);
                if kind == StateKind::Answer {
                    member.doubts_answer(frame, passed);
                }
                Intent::State(kind)
            }
            _ => Intent::Speak,
        })
    }
}

/// The direction that a `coordinate_sync_direction` asks for, if it names one.
fn direction(frame: &Frame) -> Option<Direction> {
    match frame.role_data().preferred_direction.as_deref() {
        Some("ACTIVE") => Some(Direction::Active),
        Some("PASSIVE") => Some(Direction::Passive),
        _ => None,
    }
}
