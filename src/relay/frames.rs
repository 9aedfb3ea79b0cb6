//! Handles a client's frame.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::Relay;
use super::queue::Reply;
use crate::broker::{Body, Kind, Message, Route, RoutedFrame, Target};
use crate::control::{Direction, Event, Intent, StateClaim};
use crate::hub::{Member, MemberState, Parcel, RecentStates, RoomState};
use crate::ids::{ClientId, Epoch, NodeId, ResumeToken, Seq};
use crate::protocol::{self, CloseReason, ErrorCode, Frame, FrameType, PROTOCOL_VERSION, RELAY_CLIENT_ID, outgoing};
use crate::random::Random;
use crate::reconcile::Belief;
use crate::session::{Place, Role};

/// The result of handling a frame.
pub enum Handling {
    /// The frame is handled.
    Done,
    /// The frame needs the store. No further frame of the connection is read until this future is done.
    Later(Pin<Box<dyn Future<Output = ()> + Send>>),
}

impl std::fmt::Debug for Handling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Done => "Done",
            Self::Later(_) => "Later",
        })
    }
}

impl Relay {
    /// Handles a text frame of this member. `text` is UTF-8.
    #[must_use]
    pub fn on_frame(&self, member: &Arc<Member>, text: Bytes) -> Handling {
        let frame = match Frame::parse(text) {
            Ok(frame) => frame,
            Err(malformed) => {
                self.inner.metrics.frame(FrameType::Unknown, protocol::Flow::In);
                self.reject(member, malformed.code(), "");
                return Handling::Done;
            }
        };
        self.inner.metrics.frame(frame.kind, protocol::Flow::In);
        let state = member.lock();
        if state.superseded {
            self.inner.metrics.dropped.inc();
            return Handling::Done;
        }
        let (spoke, awaits_ack) = (state.spoke, state.awaits_ack(Instant::now()));
        drop(state);
        // Acknowledgements that a client owes from before its grant, perhaps on a dead socket, do not count against a
        // controller.
        let awaits_ack = awaits_ack && member.room.lock().local_controller_at(member.connection).is_none();
        match frame.kind {
            FrameType::AssignSyncDirection
            | FrameType::ClientConnected
            | FrameType::ClientDisconnected
            | FrameType::ProtocolAck
            | FrameType::ProtocolPong
            | FrameType::Rejected
            | FrameType::Error => self.reject_frame(member, ErrorCode::ReservedType, &frame),
            FrameType::ProtocolHandshake if spoke => self.reject_frame(member, ErrorCode::HandshakeRefused, &frame),
            FrameType::ProtocolHandshake => self.handshake(member, frame),
            FrameType::ProtocolPing => self.pong(member),
            FrameType::ConfirmTransfer => self.confirmed(member, frame, spoke),
            FrameType::StateUpdate
            | FrameType::RequestControl
            | FrameType::OfferControl
            | FrameType::AcceptControl
            | FrameType::DeclineControl
            | FrameType::ReleaseControl
                if awaits_ack =>
            {
                self.inner.metrics.dropped.inc();
                member.lock().note_sent(&frame);
                Handling::Done
            }
            FrameType::StateUpdate if spoke => self.on_state(member, frame),
            FrameType::RequestSync | FrameType::RoleChanged | FrameType::Unknown if spoke => {
                self.forward(member, &frame)
            }
            FrameType::StateUpdate
            | FrameType::CoordinateSyncDirection
            | FrameType::RequestControl
            | FrameType::OfferControl
            | FrameType::AcceptControl
            | FrameType::DeclineControl
            | FrameType::ReleaseControl
            | FrameType::RequestSync
            | FrameType::RoleChanged
            | FrameType::Unknown => self.on_role_frame(member, frame),
        }
    }

    /// Refuses a binary frame, because other clients could not read it.
    pub fn on_binary(&self, member: &Member) {
        self.reject(member, ErrorCode::BinaryFrame, "");
    }

    pub(super) fn reject(&self, member: &Member, code: ErrorCode, of: &str) {
        self.inner.metrics.refusal(code);
        member.note_refusal();
        let text = outgoing::rejected(code, of, self.now());
        member.send(text, FrameType::Rejected, &self.inner.settings.queue);
    }

    fn reject_frame(&self, member: &Member, code: ErrorCode, frame: &Frame) -> Handling {
        self.reject(member, code, frame.kind.wire());
        Handling::Done
    }

    /// Handles an old client's acknowledgement of its loss of control. It can also be the client's first frame.
    fn confirmed(&self, member: &Arc<Member>, frame: Frame, spoke: bool) -> Handling {
        let mut state = member.lock();
        state.acknowledge_loss();
        let may_be_back = std::mem::take(&mut state.client_view.may_be_back);
        // The client shows what it sent while it did not know of its loss.
        let outdated = may_be_back || (!state.awaits_ack(Instant::now()) && state.is_ahead());
        drop(state);
        if outdated {
            self.bring_up_to_date(&mut member.room.lock());
        }
        if spoke { Handling::Done } else { self.on_role_frame(member, frame) }
    }

    fn handshake(&self, member: &Arc<Member>, frame: Frame) -> Handling {
        if frame.protocol_version.is_some_and(|version| version != PROTOCOL_VERSION) {
            let ack = serde_json::json!({
                "type": "protocol_ack", "accepted": false, "protocol_version": PROTOCOL_VERSION,
                "timestamp": self.now(), "error": format!("this relay speaks protocol version {PROTOCOL_VERSION}"),
            });
            member.send(ack.to_string().into(), FrameType::ProtocolAck, &self.inner.settings.queue);
            member.outbound.close(CloseReason::UnsupportedVersion);
            return Handling::Done;
        }
        let (relay, member) = (self.clone(), member.clone());
        Handling::Later(Box::pin(async move {
            let token = ResumeToken::random();
            let event = Event::Handshake { connection: member.connection, resume: token.digest() };
            match relay.submit(member.room.id, event, Some((member.clone(), frame))).await {
                // A token that the document does not have would be worthless.
                Reply::Unavailable => member.outbound.close(CloseReason::StoreUnavailable),
                _ => relay.acknowledge(&member, &token),
            }
        }))
    }

    /// Answers an application-level ping. A page does not see the pings of the socket and asks in this way. The ping is
    /// no activity, so that idle clients do not keep a session alive.
    fn pong(&self, member: &Member) -> Handling {
        let text = outgoing::frame(FrameType::ProtocolPong, RELAY_CLIENT_ID, None, self.now());
        member.send(text, FrameType::ProtocolPong, &self.inner.settings.queue);
        Handling::Done
    }

    fn acknowledge(&self, member: &Arc<Member>, token: &ResumeToken) {
        let role = self.role_of(member);
        let epoch = member.room.lock().view.as_ref().map(|view| view.session.core.epoch).unwrap_or_default();
        let mut state = member.lock();
        // Only a resumed place has done the handshake before this one.
        let resumed = state.client_view.modern;
        (state.spoke, state.client_view.modern) = (true, true);
        state.pending_acks.clear();
        member.outbound.speaks_modern();
        let ack = serde_json::json!({
            "type": "protocol_ack", "accepted": true, "protocol_version": PROTOCOL_VERSION, "timestamp": self.now(),
            "clientId": state.client.as_ref().map(|client| client.id.as_str()), "resume": token.reveal(),
            "resumed": resumed, "epoch": epoch, "role": role,
            "capabilities": ["resume", "epoch", "seq", "ping"],
        });
        drop(state);
        member.send(ack.to_string().into(), FrameType::ProtocolAck, &self.inner.settings.queue);
    }

    /// The hot path: handles a state of the ACTIVE client with this node's own data, without the store.
    fn on_state(&self, member: &Arc<Member>, frame: Frame) -> Handling {
        let now = Instant::now();
        let hash = frame.data_hash();
        let mut room = member.room.lock();
        let mut state = member.lock();
        let answer = state.answers(hash, frame.epoch.is_some(), &room.passed, now);
        if let Some(controller) = room.local_controller_at(member.connection) {
            let entitled = self.drives(&room, member.connection);
            let stale = state.client_view.modern && frame.epoch.is_some_and(|epoch| epoch < controller.epoch);
            if !entitled || stale || (controller.provisional && !answer) {
                drop((state, room));
                return self.on_role_frame(member, frame);
            }
            // The client may show a state that was on its way to it when it answered.
            let crossed = answer && state.last_state.is_some_and(|last| last != hash);
            state.drove(hash);
            // The answer to its earlier question is outdated now.
            state.updated |= !answer;
            let seq = state.next_seq();
            drop(state);
            self.note_activity(&mut room, !answer);
            self.pass(&mut room, member, &frame, Kind::State, seq);
            if crossed {
                room.asked = None;
                self.request_own_state(&mut room);
            }
            return Handling::Done;
        }
        let view = room.view.as_ref();
        let controls = view.is_some_and(|view| view.session.controls(member.connection));
        if !controls && answer {
            let askers = state.answered();
            state.note_answer(hash);
            let seq = state.next_seq();
            drop(state);
            self.note_activity(&mut room, false);
            self.pass_answer(&mut room, member, &frame, &askers, seq);
            return Handling::Done;
        }
        if !controls && state.client_view.modern && !state.initial_push {
            let epoch = view.map(|view| view.session.core.epoch);
            let stale = frame.epoch.zip(epoch).is_some_and(|(frame, now)| frame < now);
            let code = if stale { ErrorCode::StaleEpoch } else { ErrorCode::NotActive };
            state.note_sent(&frame);
            drop((state, room));
            return self.reject_frame(member, code, &frame);
        }
        drop((state, room));
        self.on_role_frame(member, frame)
    }

    /// Forwards a frame that does not affect roles to all other clients.
    fn forward(&self, member: &Arc<Member>, frame: &Frame) -> Handling {
        let kind = if frame.kind == FrameType::RequestSync { Kind::RequestSync } else { Kind::Other };
        let mut room = member.room.lock();
        self.note_activity(&mut room, false);
        let mut state = member.lock();
        if kind == Kind::RequestSync {
            state.updated = false;
        }
        let seq = state.next_seq();
        drop(state);
        self.pass(&mut room, member, frame, kind, seq);
        Handling::Done
    }

    /// Forwards the first frame of a client if it does not affect roles, once the document has the client.
    pub(super) fn forward_first(&self, member: &Arc<Member>, frame: &Frame) {
        match frame.kind {
            FrameType::RequestSync | FrameType::RoleChanged | FrameType::Unknown if !member.lock().superseded => {
                self.forward(member, frame);
            }
            _ => {}
        }
    }

    /// Handles a frame that the rules decide on, or the first frame of its client.
    fn on_role_frame(&self, member: &Arc<Member>, frame: Frame) -> Handling {
        let direction = frame.role_data().preferred_direction;
        if frame.kind == FrameType::CoordinateSyncDirection
            && !matches!(direction.as_deref(), Some("ACTIVE" | "PASSIVE"))
        {
            return self.reject_frame(member, ErrorCode::MalformedFrame, &frame);
        }
        if frame.kind == FrameType::CoordinateSyncDirection {
            // Only a client that believes to have no role asks for one, so it need not be told that it is not the
            // controller.
            let withdrawn = member.outbound.withdraw(FrameType::AcceptControl);
            let mut state = member.lock();
            state.withdraw_acks(withdrawn);
            state.client_view.may_be_back = false;
        }
        Handling::Later(Box::pin(self.clone().decide_frame(member.clone(), frame)))
    }

    /// Submits a frame to the rules, and reports an error if they cannot decide it.
    pub(super) async fn decide_frame(self, member: Arc<Member>, frame: Frame) {
        let alias = frame.client_id.as_deref().and_then(ClientId::parse);
        let intent = self.intent(&member, &frame, alias.as_ref());
        let epoch = self.epoch_of(&member, &frame);
        let event = Event::Frame { connection: member.connection, alias, epoch, intent: intent.clone() };
        let kind = frame.kind;
        let reply = self.submit(member.room.id, event, Some((member.clone(), frame.clone()))).await;
        member.lock().note_sent(&frame);
        if matches!(reply, Reply::Unavailable) {
            self.undecided(&member, &intent);
            self.reject(&member, ErrorCode::StoreUnavailable, kind.wire());
        }
    }

    /// Handles a frame that could not be decided although its sender may believe that it was. As soon as the document
    /// is readable again, the sender is told the true roles and the controller is asked for its state.
    fn undecided(&self, member: &Member, intent: &Intent) {
        let mut room = member.room.lock();
        let controls = room.view.as_ref().is_some_and(|view| view.session.controls(member.connection));
        (room.stale, room.needs_resync, room.asked) = (true, true, None);
        if let Some(belief) = Belief::of(intent, controls) {
            member.lock().client_view.was_not_decided(belief);
        }
    }

    /// The epoch that a frame belongs to. A client with the handshake names it. A frame of a client without it belongs
    /// to the epoch in which its sender was the controller when the frame arrived, if it was.
    fn epoch_of(&self, member: &Member, frame: &Frame) -> Option<Epoch> {
        if member.lock().client_view.modern {
            return frame.epoch;
        }
        let room = member.room.lock();
        let session = &room.view.as_ref()?.session;
        session.controls(member.connection).then_some(session.core.epoch)
    }

    /// The frame's intent for the rules.
    fn intent(&self, member: &Member, frame: &Frame, alias: Option<&ClientId>) -> Intent {
        let room = member.room.lock();
        let mut state = member.lock();
        match frame.kind {
            FrameType::CoordinateSyncDirection => {
                let direction = frame.role_data().preferred_direction;
                let passive = direction.as_deref() == Some("PASSIVE");
                Intent::Coordinate(if passive { Direction::Passive } else { Direction::Active })
            }
            FrameType::RequestControl => Intent::Request,
            FrameType::OfferControl => {
                let name = alias.or_else(|| state.name()).cloned();
                name.map_or(Intent::Speak, Intent::Offer)
            }
            FrameType::AcceptControl => Intent::Accept(frame.role_data().from_client_id),
            FrameType::DeclineControl => Intent::Decline(frame.role_data().from_client_id),
            FrameType::ReleaseControl => Intent::Release,
            FrameType::StateUpdate => Intent::State(state_claim(&mut state, &room.passed, frame)),
            _ => Intent::Speak,
        }
    }

    /// Forwards a frame to all other clients: to those on this node directly, to the others by their nodes.
    pub(super) fn pass(&self, room: &mut RoomState, from: &Member, frame: &Frame, kind: Kind, seq: Seq) {
        let epoch = room.view.as_ref().map(|view| view.session.core.epoch).unwrap_or_default();
        let hash = if kind == Kind::State { frame.data_hash() } else { 0 };
        let mut parcel = Parcel::new(frame.text.clone(), frame.kind, epoch, seq);
        if kind == Kind::State {
            (room.needs_resync, room.asked) = (false, None);
            room.passed.note(hash);
            (parcel.state_of, parcel.state_hash) = (Some(from.connection), Some(hash));
        }
        let asker = Place { node: self.node().clone(), connection: from.connection };
        for member in room.members.iter().filter(|member| member.connection != from.connection) {
            if kind == Kind::RequestSync {
                member.lock().ask(Some(asker.clone()), Instant::now());
            }
            let superseded = member.deliver(&mut parcel, &self.inner.settings.queue);
            self.inner.metrics.conflated.inc_by(superseded as u64);
        }
        for node in &room.elsewhere {
            let source = from.connection;
            let route = Route { source, epoch, seq, state_hash: hash, target: Target::Others, kind };
            self.publish(node, from.room.id, route, frame.text.clone());
        }
    }

    /// Forwards an answer to the clients that asked for it, on any node.
    pub(super) fn pass_answer(&self, room: &mut RoomState, from: &Member, frame: &Frame, askers: &[Place], seq: Seq) {
        let epoch = room.view.as_ref().map(|view| view.session.core.epoch).unwrap_or_default();
        let (here, state_hash) = (self.node(), frame.data_hash());
        let local = askers.iter().filter(|asker| asker.node == *here);
        for member in local.filter_map(|asker| room.member(asker.connection).cloned()).collect::<Vec<_>>() {
            self.answer(room, &member, Parcel::new(frame.text.clone(), frame.kind, epoch, seq), state_hash);
        }
        let nodes: BTreeSet<&NodeId> = askers.iter().map(|asker| &asker.node).filter(|node| *node != here).collect();
        for node in nodes {
            let there = askers.iter().filter(|asker| asker.node == *node);
            let (source, target) = (from.connection, Target::Only(there.map(|asker| asker.connection).collect()));
            let route = Route { source, epoch, seq, state_hash, target, kind: Kind::Answer };
            self.publish(node, from.room.id, route, frame.text.clone());
        }
    }

    /// Sends an answer to a client that asked, unless a state of the ACTIVE client has overtaken it. If the client that
    /// asked is the ACTIVE client, its followers must get the state that it continues from.
    pub(super) fn answer(&self, room: &mut RoomState, member: &Member, mut parcel: Parcel, hash: u64) {
        let state = member.lock();
        let another = state.last_state.is_some_and(|last| last != hash);
        let overtaken = state.updated && another;
        drop(state);
        if overtaken {
            self.inner.metrics.dropped.inc();
            return;
        }
        parcel.state_hash = Some(hash);
        member.deliver(&mut parcel, &self.inner.settings.queue);
        if another && room.local_controller_at(member.connection).is_some() {
            room.asked = None;
            self.request_own_state(room);
        }
    }

    pub(super) fn publish(&self, node: &NodeId, session: crate::ids::SessionId, route: Route, text: Bytes) {
        let body = Body::Frame(RoutedFrame { route, text });
        self.inner.broker.publish(node, Message { session, body });
    }

    /// The role of this member's client as this node knows it.
    #[must_use]
    pub fn role_of(&self, member: &Member) -> Role {
        let room = member.room.lock();
        let Some(view) = &room.view else { return Role::default() };
        view.session.client(member.connection).map(|(_, client)| view.session.role(client)).unwrap_or_default()
    }
}

/// Classifies a state, as far as its sender's connection allows.
fn state_claim(state: &mut MemberState, passed: &RecentStates, frame: &Frame) -> StateClaim {
    if state.answers(frame.data_hash(), frame.epoch.is_some(), passed, Instant::now()) {
        StateClaim::Answer
    } else if state.client_view.modern && std::mem::take(&mut state.initial_push) {
        StateClaim::InitialPush
    } else {
        StateClaim::Drive
    }
}
