//! Notices: the clients of this node are told what a new document changes for them.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::{Relay, RelayEvent};
use crate::broker::{Body, Kind, Message};
use crate::hub::{LocalController, Member, MemberState, Room, RoomState, View};
use crate::ids::{ConnectionId, Epoch, Millis, SessionId};
use crate::protocol::{CloseReason, Frame, FrameType, RELAY_CLIENT_ID, outgoing};
use crate::reconcile::{self, Diff, Notice, Phase, is_superseded, notices};
use crate::session::{Client, Role, Session, Status};

/// A term that no lease has.
const NO_TERM: u64 = 0;

/// How recent a state is that a node that has just joined may have missed.
const RECENT: Millis = 2_000;

impl Relay {
    /// Accepts a document as the current one: tells this node's clients, and lets the controller send states if it is
    /// one of them. `term` is the lease that the node held before it read the document.
    pub(super) fn observe(&self, room: &Arc<Room>, session: &Arc<Session>, version: u64, term: Option<u64>) {
        let mut state = room.lock();
        if state.view.as_ref().is_some_and(|view| view.version > version) {
            return;
        }
        let before = state.view.replace(View { session: session.clone(), version });
        let before = before.as_ref().map(|view| view.session.as_ref());
        // The document was read before the lease was renewed, when all rooms were marked as stale. This room is still
        // stale.
        let current = self.inner.presence.term();
        state.stale = current.is_some() && current != term;
        state.due_at = self.due_at(session);
        if let Some(reason) = ended(session.core.status) {
            self.end(room.id, &mut state, reason);
            return;
        }
        let newly_reached = self.look_elsewhere(room.id, &mut state, session, version);
        // The lease is a new one, so states that were sent in between did not pass.
        if term.is_some() && state.term.is_some_and(|before| Some(before) != term) {
            (state.needs_resync, state.asked) = (true, None);
        }
        state.term = term.or(state.term);
        self.set_local_controller(&mut state, session, term);
        let diff = reconcile::diff(before, session);
        self.notify_all(&mut state, &diff, session);
        state.release = None;
        let recently = self.now().saturating_sub(state.activity.drove_at) < RECENT;
        if newly_reached
            && (std::mem::take(&mut state.early_sync_request) || recently || self.inner.presence.may_have_lost_data())
        {
            (state.needs_resync, state.asked) = (true, None);
        }
        if state.needs_resync {
            self.request_state(&mut state, session);
        }
        self.pass_held(&mut state);
        let stopped = self.stop_leaving(&mut state, session);
        drop(state);
        self.report(room.id, before, session, &diff);
        if stopped {
            self.refresh(room);
        }
    }

    fn end(&self, id: SessionId, state: &mut RoomState, reason: CloseReason) {
        state.controller = None;
        for member in &state.members {
            member.outbound.close(reason);
        }
        let event = match reason {
            CloseReason::SessionDeleted => RelayEvent::SessionDeleted(id),
            _ => RelayEvent::SessionExpired(id),
        };
        if !state.members.is_empty() {
            self.emit(event);
        }
    }

    /// Notes which other nodes have clients. Returns `true` if one of them is new: it may have missed recent states,
    /// and it may not know of this node yet, because two first joins at the same moment do not see each other.
    fn look_elsewhere(&self, id: SessionId, state: &mut RoomState, session: &Session, version: u64) -> bool {
        let others = session.rosters.iter().filter(|(node, _)| *node != self.node());
        let live = others.filter(|(_, roster)| roster.clients.iter().any(|client| client.cut_off_at.is_none()));
        let elsewhere: Vec<_> = live.map(|(node, _)| node.clone()).collect();
        let known = std::mem::replace(&mut state.elsewhere, elsewhere);
        let new: Vec<_> = state.elsewhere.iter().filter(|node| !known.contains(node)).collect();
        for node in &new {
            self.inner.broker.publish(node, Message { session: id, body: Body::Changed { version } });
            if !state.passed.is_empty() {
                let body = Body::RecentStates(state.passed.iter().collect());
                self.inner.broker.publish(node, Message { session: id, body });
            }
        }
        !new.is_empty()
    }

    fn set_local_controller(&self, state: &mut RoomState, session: &Session, term: Option<u64>) {
        let leaving = session.core.controller.as_ref().filter(|_| self.must_be_flushed(state, session));
        let here = session
            .sending_controller()
            .or(leaving)
            .filter(|controller| state.member(controller.place.connection).is_some());
        // A controller that was suspended while control was granted to it again is as certain as before.
        let granted = |controller: &LocalController| !controller.suspended || session.core.epoch > controller.epoch;
        let sure =
            state.controller.filter(|controller| self.inner.presence.covers(controller.term) && granted(controller));
        let unsure = self.doubts_controller(session, sure.map(|controller| controller.connection));
        if unsure {
            // The controller is claimed under no lease, and checked again until the doubt is over.
            (state.term, state.stale) = (Some(NO_TERM), true);
        }
        state.controller = here.filter(|_| !unsure).zip(term).map(|(controller, term)| LocalController {
            connection: controller.place.connection,
            epoch: session.core.epoch,
            term,
            provisional: controller.provisional,
            suspended: false,
        });
        // Frames of an older epoch from another node come too late.
        state.fence.raise(session.core.epoch);
    }

    fn notify_all(&self, state: &mut RoomState, diff: &Diff, session: &Session) {
        let now = Instant::now();
        let places: std::collections::HashMap<_, _> =
            session.rosters.values().flat_map(|roster| &roster.clients).map(|c| (c.connection, c)).collect();
        self.silence_superseded(state, session);
        let mut ahead = false;
        for member in &state.members {
            let mut told = member.lock();
            if told.superseded {
                continue;
            }
            let Some(me) = places.get(&member.connection).copied() else { continue };
            if !diff.left.is_empty() && !told.client_view.modern {
                member.outbound.hold_after_leave(now);
            }
            let news = self.notify_one(member, &mut told, me, diff, session, state.release.as_ref());
            // The controller goes on from the state that it sent before, when it was not the controller.
            ahead |= news && session.controls(member.connection) && told.is_ahead();
        }
        state.needs_resync |= ahead;
    }

    /// Stops all frames to a socket that a newer socket of the same client has superseded. A socket with the handshake
    /// is closed. One without it stays open, and the newer one acknowledges what the older one was sent.
    fn silence_superseded(&self, state: &mut RoomState, session: &Session) {
        if session.core.superseded.is_empty() {
            return;
        }
        let mut pending_acks = Vec::new();
        state.members.retain(|member| {
            let mut told = member.lock();
            if !is_superseded(session, member.connection) || std::mem::replace(&mut told.superseded, true) {
                return true;
            }
            if told.client_view.modern {
                member.outbound.close(CloseReason::Evicted);
                return false;
            }
            let acks = told.last_pending_ack();
            pending_acks
                .extend(told.client.as_ref().and_then(|client| client.alias.clone()).map(|alias| (alias, acks)));
            true
        });
        for (alias, acks) in pending_acks {
            let newer = session.clients().find(|(_, client)| client.alias.as_ref() == Some(&alias));
            if let Some(member) = newer.and_then(|(_, client)| state.member(client.connection)) {
                member.lock().inherit_ack(acks);
            }
        }
    }

    /// Tells one client its changes. Returns `true` if there were any.
    fn notify_one(
        &self,
        member: &Member,
        state: &mut MemberState,
        me: &Client,
        diff: &Diff,
        session: &Session,
        release: Option<&(ConnectionId, Bytes)>,
    ) -> bool {
        let drove = state.client_view.phase == Phase::Active;
        let notices = notices(&mut state.client_view, me, diff, session);
        state.expect_acks(Instant::now());
        state.client = Some(me.clone());
        let role = session.role(me);
        match role {
            Role::Active => state.initial_push = false,
            Role::Passive | Role::Connected => {}
        }
        if drove && state.client_view.phase != Phase::Active {
            state.on_control_lost();
        }
        let leaving = role == Role::Active && session.core.transfer.is_some();
        let accepted = if notices.is_empty() || leaving { None } else { state.accepted.take() };
        let by = session.core.controller.as_ref().map(|controller| controller.place.connection);
        let mut accepted = accepted.filter(|(source, _)| Some(*source) == by);
        let epoch = state.client_view.modern.then_some(session.core.epoch);
        for tell in &notices {
            if *tell == Notice::RequestSync {
                state.ask(None, Instant::now());
            }
            let original = match tell {
                Notice::AcceptControl(client) => {
                    accepted.take().map(|(_, text)| text).filter(|t| is_from(t, client.as_str()))
                }
                Notice::ReleaseControl(client) => release
                    .filter(|(source, _)| session.core.ended.as_ref().is_some_and(|e| e.connection == *source))
                    .map(|(_, text)| text.clone())
                    .filter(|text| is_from(text, client.as_str())),
                _ => None,
            };
            let (kind, made) = self.render(tell, me, epoch);
            let text = original.unwrap_or(made);
            member.send(text, kind, &self.inner.settings.queue);
        }
        // A client with the handshake learns of its loss by its role only; the frame that caused the loss follows.
        if let (Some((_, text)), Some(epoch), false) = (accepted, epoch, role == Role::Active) {
            let text = outgoing::with_members(&text, &[("epoch", epoch.0.into())]);
            member.send(text, FrameType::AcceptControl, &self.inner.settings.queue);
        }
        !notices.is_empty()
    }

    fn render(&self, tell: &Notice, me: &Client, epoch: Option<Epoch>) -> (FrameType, Bytes) {
        let now = self.now();
        let (kind, client, data) = match tell {
            Notice::Connected(client) => (FrameType::ClientConnected, client.as_str(), None),
            Notice::Disconnected(client) => {
                (FrameType::ClientDisconnected, client.as_str(), Some(serde_json::json!({})))
            }
            Notice::Assign(role) => (FrameType::AssignSyncDirection, RELAY_CLIENT_ID, Some(assignment(*role))),
            Notice::ConfirmTransfer => {
                let data = serde_json::json!({ "reason": "you are in control" });
                (FrameType::ConfirmTransfer, RELAY_CLIENT_ID, Some(data))
            }
            Notice::AcceptControl(client) => {
                let data = serde_json::json!({ "fromClientId": me.name().as_str(), "timestamp": now });
                (FrameType::AcceptControl, client.as_str(), Some(data))
            }
            Notice::ReleaseControl(client) => {
                (FrameType::ReleaseControl, client.as_str(), Some(serde_json::json!({ "timestamp": now })))
            }
            Notice::RoleChanged(client, role) => {
                let data = serde_json::json!({ "role": role, "timestamp": now });
                (FrameType::RoleChanged, client.as_str(), Some(data))
            }
            Notice::RequestSync => (FrameType::RequestSync, RELAY_CLIENT_ID, Some(serde_json::json!({}))),
        };
        (kind, outgoing::numbered(kind, client, data, now, epoch))
    }

    /// Forwards a frame that waited for a grant, or drops it if no grant came.
    fn pass_held(&self, state: &mut RoomState) {
        let moving = state.view.as_ref().is_some_and(|view| view.session.core.transfer.is_some());
        for member in state.members.clone() {
            let mut held = member.lock();
            let drives = self.drives(state, member.connection);
            if held.held.is_none() || (moving && !drives) {
                continue;
            }
            match held.held.take() {
                Some(frame) if drives && frame.kind == FrameType::StateUpdate => {
                    held.drove(frame.data_hash());
                    let seq = held.next_seq();
                    drop(held);
                    self.note_activity(state, true);
                    self.pass(state, &member, &frame, Kind::State, seq);
                }
                // An offer must be in the document before it can be accepted.
                Some(frame) if drives => {
                    drop(held);
                    let (relay, member) = (self.clone(), member.clone());
                    self.inner.tasks.spawn(async move { relay.decide_frame(member, frame).await });
                }
                _ => self.inner.metrics.dropped.inc(),
            }
        }
    }

    /// Whether the states of this socket may pass now.
    pub(super) fn drives(&self, state: &RoomState, connection: ConnectionId) -> bool {
        let controller = state.local_controller_at(connection).filter(|controller| !controller.suspended);
        controller.is_some_and(|controller| self.inner.presence.term() == Some(controller.term))
    }

    fn report(&self, id: SessionId, before: Option<&Session>, after: &Session, diff: &Diff) {
        for client in &diff.joined {
            self.emit(RelayEvent::ClientConnected(id, client.clone()));
        }
        for client in &diff.left {
            self.emit(RelayEvent::ClientDisconnected(id, client.clone()));
        }
        for (client, role) in &diff.roles {
            self.emit(RelayEvent::RoleChanged(id, client.clone(), *role));
        }
        let from = before.and_then(|before| before.core.controller.as_ref());
        if let (Some(from), Some(to)) = (from, &after.core.controller)
            && from.client != to.client
        {
            let (from, to) = (from.client.clone(), to.client.clone());
            self.emit(RelayEvent::ControlTransferred { session: id, from, to });
        }
    }
}

fn ended(status: Status) -> Option<CloseReason> {
    match status {
        Status::Active => None,
        Status::Expired => Some(CloseReason::SessionExpired),
        Status::Deleted => Some(CloseReason::SessionDeleted),
    }
}

fn is_from(text: &Bytes, client: &str) -> bool {
    Frame::parse(text.clone()).is_ok_and(|frame| frame.client_id.as_deref() == Some(client))
}

fn assignment(role: Role) -> serde_json::Value {
    match role {
        Role::Active => serde_json::json!({ "assignedDirection": "ACTIVE", "reason": "you are in control" }),
        Role::Passive | Role::Connected => {
            serde_json::json!({ "assignedDirection": "PASSIVE", "reason": "you follow" })
        }
    }
}
