//! A document becomes news: the clients of this node are told what changed for them.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::{Relay, RelayEvent};
use crate::broker::{Body, Kind, Message};
use crate::hub::{Driver, Room, RoomState, Seat, SeatState, View};
use crate::ids::{ConnectionId, Epoch, Millis, SessionId};
use crate::protocol::{CloseReason, Frame, FrameType, RELAY_CLIENT_ID, outgoing};
use crate::reconcile::{self, Diff, Phase, Tell, is_replaced, tell};
use crate::session::{Client, Role, Session, Status};

/// No lease has this number.
const NO_TERM: u64 = 0;

/// A state passed so recently that a node which has just joined may have missed it.
const RECENT: Millis = 2_000;

impl Relay {
    /// Takes a document for what is: tells this node's clients, and lets the holder drive if it is one of them. `term` is
    /// the lease that the node held before it read the document.
    pub(super) fn observe(&self, room: &Arc<Room>, session: &Arc<Session>, version: u64, term: Option<u64>) {
        let mut state = room.lock();
        if state.view.as_ref().is_some_and(|view| view.version > version) {
            return;
        }
        let before = state.view.replace(View { session: session.clone(), version });
        let before = before.as_ref().map(|view| view.session.as_ref());
        // Read before the lease was renewed, while everything was marked to be read again: that is still to be done.
        let current = self.inner.presence.term();
        state.stale = current.is_some() && current != term;
        state.due_at = self.due_at(session);
        if let Some(reason) = ended(session.core.status) {
            self.end(room.id, &mut state, reason);
            return;
        }
        let newly_reached = self.look_elsewhere(room.id, &mut state, session, version);
        // Under another lease than before: what was said in between did not pass.
        if term.is_some() && state.term.is_some_and(|before| Some(before) != term) {
            (state.behind, state.asked) = (true, None);
        }
        state.term = term.or(state.term);
        self.seat_driver(&mut state, session, term);
        let diff = reconcile::diff(before, session);
        self.tell_all(&mut state, &diff, session);
        state.release = None;
        let recently = self.now().saturating_sub(state.activity.drove_at) < RECENT;
        if newly_reached && (std::mem::take(&mut state.sought) || recently || self.inner.presence.memory_is_doubtful())
        {
            (state.behind, state.asked) = (true, None);
        }
        if state.behind {
            self.ask_driver(&mut state, session);
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
        state.driver = None;
        for seat in &state.seats {
            seat.outbound.close(reason);
        }
        let event = match reason {
            CloseReason::SessionDeleted => RelayEvent::SessionDeleted(id),
            _ => RelayEvent::SessionExpired(id),
        };
        if !state.seats.is_empty() {
            self.emit(event);
        }
    }

    /// Notes which other nodes have clients. `true`: one is new, and may have missed what was just sent. It may also not
    /// know of this node yet: two first joins at the same moment do not see each other.
    fn look_elsewhere(&self, id: SessionId, state: &mut RoomState, session: &Session, version: u64) -> bool {
        let others = session.rosters.iter().filter(|(node, _)| *node != self.node());
        let live = others.filter(|(_, roster)| roster.clients.iter().any(|client| client.cut_off_at.is_none()));
        let elsewhere: Vec<_> = live.map(|(node, _)| node.clone()).collect();
        let known = std::mem::replace(&mut state.elsewhere, elsewhere);
        let new: Vec<_> = state.elsewhere.iter().filter(|node| !known.contains(node)).collect();
        for node in &new {
            self.inner.broker.publish(node, Message { session: id, body: Body::Changed { version } });
            if !state.passed.is_empty() {
                let body = Body::Passed(state.passed.iter().collect());
                self.inner.broker.publish(node, Message { session: id, body });
            }
        }
        !new.is_empty()
    }

    fn seat_driver(&self, state: &mut RoomState, session: &Session, term: Option<u64>) {
        let leaving = session.core.holder.as_ref().filter(|_| self.must_be_flushed(state, session));
        let here = session.driver().or(leaving).filter(|holder| state.seat(holder.place.connection).is_some());
        // Suspended while it was granted control anew, it is as sure as before.
        let granted = |driver: &Driver| !driver.suspended || session.core.epoch > driver.epoch;
        let sure = state.driver.filter(|driver| self.inner.presence.covers(driver.term) && granted(driver));
        let unsure = self.is_unsure_of_holder(session, sure.map(|driver| driver.connection));
        if unsure {
            // Claimed under no lease, and looked at again until it is out of doubt.
            (state.term, state.stale) = (Some(NO_TERM), true);
        }
        state.driver = here.filter(|_| !unsure).zip(term).map(|(holder, term)| Driver {
            connection: holder.place.connection,
            epoch: session.core.epoch,
            term,
            provisional: holder.provisional,
            suspended: false,
        });
        // What another node sends of an older epoch comes too late.
        state.fence.raise(session.core.epoch);
    }

    fn tell_all(&self, state: &mut RoomState, diff: &Diff, session: &Session) {
        let now = Instant::now();
        let places: std::collections::HashMap<_, _> =
            session.rosters.values().flat_map(|roster| &roster.clients).map(|c| (c.connection, c)).collect();
        self.mute_replaced(state, session);
        let mut ahead = false;
        for seat in &state.seats {
            let mut told = seat.lock();
            if told.muted {
                continue;
            }
            let Some(me) = places.get(&seat.connection).copied() else { continue };
            if !diff.left.is_empty() && !told.told.modern {
                seat.outbound.hold_after_leave(now);
            }
            let news = self.tell_one(seat, &mut told, me, diff, session, state.release.as_ref());
            // What it said before, as one that did not drive, is what it goes on from.
            ahead |= news && session.holds(seat.connection) && told.is_ahead();
        }
        state.behind |= ahead;
    }

    /// A socket whose place a newer one of the same client took gets nothing more. If it has done the handshake it is
    /// closed; if not it stays open, and what it was sent the newer one answers for.
    fn mute_replaced(&self, state: &mut RoomState, session: &Session) {
        if session.core.replaced.is_empty() {
            return;
        }
        let mut gates = Vec::new();
        state.seats.retain(|seat| {
            let mut told = seat.lock();
            if !is_replaced(session, seat.connection) || std::mem::replace(&mut told.muted, true) {
                return true;
            }
            if told.told.modern {
                seat.outbound.close(CloseReason::Evicted);
                return false;
            }
            let gate = told.last_gate();
            gates.extend(told.client.as_ref().and_then(|client| client.alias.clone()).map(|alias| (alias, gate)));
            true
        });
        for (alias, gate) in gates {
            let newer = session.clients().find(|(_, client)| client.alias.as_ref() == Some(&alias));
            if let Some(seat) = newer.and_then(|(_, client)| state.seat(client.connection)) {
                seat.lock().inherit_gate(gate);
            }
        }
    }

    /// Tells one client. `true`: there was something to tell.
    fn tell_one(
        &self,
        seat: &Seat,
        state: &mut SeatState,
        me: &Client,
        diff: &Diff,
        session: &Session,
        release: Option<&(ConnectionId, Bytes)>,
    ) -> bool {
        let drove = state.told.phase == Phase::Active;
        let tells = tell(&mut state.told, me, diff, session);
        state.shut_gates(Instant::now());
        state.client = Some(me.clone());
        let role = session.role(me);
        match role {
            Role::Active => state.initial_push = false,
            Role::Passive | Role::Connected => {}
        }
        if drove && state.told.phase != Phase::Active {
            state.drove_no_more();
        }
        let leaving = role == Role::Active && session.core.transfer.is_some();
        let accepted = if tells.is_empty() || leaving { None } else { state.accepted.take() };
        let by = session.core.holder.as_ref().map(|holder| holder.place.connection);
        let mut accepted = accepted.filter(|(source, _)| Some(*source) == by);
        let epoch = state.told.modern.then_some(session.core.epoch);
        for tell in &tells {
            if *tell == Tell::RequestSync {
                state.ask(None, Instant::now());
            }
            let original = match tell {
                Tell::AcceptControl(client) => {
                    accepted.take().map(|(_, text)| text).filter(|t| is_from(t, client.as_str()))
                }
                Tell::ReleaseControl(client) => release
                    .filter(|(source, _)| session.core.ended.as_ref().is_some_and(|e| e.connection == *source))
                    .map(|(_, text)| text.clone())
                    .filter(|text| is_from(text, client.as_str())),
                _ => None,
            };
            let (kind, made) = self.render(tell, me, epoch);
            let text = original.unwrap_or(made);
            seat.tell(text, kind, &self.inner.settings.queue);
        }
        // A client with the handshake hears of its loss by its role alone; the frame that caused it follows.
        if let (Some((_, text)), Some(epoch), false) = (accepted, epoch, role == Role::Active) {
            let text = outgoing::with_members(&text, &[("epoch", epoch.0.into())]);
            seat.tell(text, FrameType::AcceptControl, &self.inner.settings.queue);
        }
        !tells.is_empty()
    }

    fn render(&self, tell: &Tell, me: &Client, epoch: Option<Epoch>) -> (FrameType, Bytes) {
        let now = self.now();
        let (kind, client, data) = match tell {
            Tell::Connected(client) => (FrameType::ClientConnected, client.as_str(), None),
            Tell::Disconnected(client) => (FrameType::ClientDisconnected, client.as_str(), Some(serde_json::json!({}))),
            Tell::Assign(role) => (FrameType::AssignSyncDirection, RELAY_CLIENT_ID, Some(assignment(*role))),
            Tell::ConfirmTransfer => {
                let data = serde_json::json!({ "reason": "you are in control" });
                (FrameType::ConfirmTransfer, RELAY_CLIENT_ID, Some(data))
            }
            Tell::AcceptControl(client) => {
                let data = serde_json::json!({ "fromClientId": me.name().as_str(), "timestamp": now });
                (FrameType::AcceptControl, client.as_str(), Some(data))
            }
            Tell::ReleaseControl(client) => {
                (FrameType::ReleaseControl, client.as_str(), Some(serde_json::json!({ "timestamp": now })))
            }
            Tell::RoleChanged(client, role) => {
                let data = serde_json::json!({ "role": role, "timestamp": now });
                (FrameType::RoleChanged, client.as_str(), Some(data))
            }
            Tell::RequestSync => (FrameType::RequestSync, RELAY_CLIENT_ID, Some(serde_json::json!({}))),
        };
        (kind, outgoing::numbered(kind, client, data, now, epoch))
    }

    /// A frame that waited for control to come follows now, or is dropped if it did not come.
    fn pass_held(&self, state: &mut RoomState) {
        let moving = state.view.as_ref().is_some_and(|view| view.session.core.transfer.is_some());
        for seat in state.seats.clone() {
            let mut held = seat.lock();
            let drives = self.drives(state, seat.connection);
            if held.held.is_none() || (moving && !drives) {
                continue;
            }
            match held.held.take() {
                Some(frame) if drives && frame.kind == FrameType::StateUpdate => {
                    held.drove(frame.data_hash());
                    let seq = held.next_seq();
                    drop(held);
                    self.note_activity(state, true);
                    self.pass(state, &seat, &frame, Kind::State, seq);
                }
                // An offer has to stand in the document before it can be accepted.
                Some(frame) if drives => {
                    drop(held);
                    let (relay, seat) = (self.clone(), seat.clone());
                    self.inner.tasks.spawn(async move { relay.decide_frame(seat, frame).await });
                }
                _ => self.inner.metrics.dropped.inc(),
            }
        }
    }

    /// Whether the states of this socket may pass at this moment.
    pub(super) fn drives(&self, state: &RoomState, connection: ConnectionId) -> bool {
        let driver = state.driver_at(connection).filter(|driver| !driver.suspended);
        driver.is_some_and(|driver| self.inner.presence.term() == Some(driver.term))
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
        let from = before.and_then(|before| before.core.holder.as_ref());
        if let (Some(from), Some(to)) = (from, &after.core.holder)
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
