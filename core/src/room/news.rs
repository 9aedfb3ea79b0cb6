//! The news: the clients of this node are told what a new document changes for them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::member::Member;
use super::output::{Output, Outputs, RelayEvent};
use super::{LocalController, Step, View};
use crate::dialect::Phase;
use crate::ids::{ClientId, ConnectionId, Epoch, Millis, NodeId};
use crate::protocol::{CloseReason, Frame, FrameType, RELAY_CLIENT_ID, outgoing};
use crate::reconcile::{self, Diff, Notice, is_superseded, notices};
use crate::route::Body;
use crate::session::{Client, Role, Session, Status};

/// A term that no lease has.
const NO_TERM: u64 = 0;

/// How recent a state is that a node that has just joined may have missed, in milliseconds.
const RECENT: Millis = 2_000;

impl<S, T, O: Outputs<S, T>> Step<'_, '_, S, T, O> {
    /// Accepts a document as the current one: tells this node's clients, and lets the controller send states if it is
    /// one of them. `term` is the lease that the node held before it read the document, `lapsed` are the dead nodes.
    pub(super) fn observe(
        &mut self,
        session: &Arc<Session>,
        version: u64,
        term: Option<u64>,
        lapsed: &BTreeSet<NodeId>,
    ) {
        let recovering = self.is_recovering(session);
        let known = &mut self.room.known;
        // An older document comes from a store that lost data. It counts once the node has noticed the loss, and could have
        // restored the core that it knows: without a lease it cannot.
        let is_later =
            |view: &View| view.version > version || recovering && view.session.core.age() > session.core.age();
        if known.view.as_ref().is_some_and(is_later) {
            known.stale = true;
            return;
        }
        // This was written before the loss, and the store counts from one again.
        let version = if known.unread_since_loss { 0 } else { version };
        let before = known.view.replace(View { session: session.clone(), version }).map(|view| view.session);
        // The document was read before the lease was renewed, when all rooms were marked as stale. This room is still
        // stale.
        let current = self.env.trust.term(self.env.now);
        known.stale = current.is_some() && current != term;
        self.room.known.due_at = self.due_at(session, lapsed);
        if let Some(reason) = ended(session.core.status) {
            return self.close_all(reason);
        }
        let newly_reached = self.look_elsewhere(session, version);
        // The lease is a new one, so states that were sent in between did not pass.
        if term.is_some() && self.room.known.term.is_some_and(|before| Some(before) != term) {
            self.room.stream.resync();
        }
        self.room.known.term = term.or(self.room.known.term);
        self.set_local_controller(session, term);
        let diff = reconcile::diff(before.as_deref(), session);
        self.notify_all(&diff, session);
        self.room.stream.release = None;
        // The controller cannot be asked for a new follower now: control is moving away from it, or it is cut off.
        let unasked = diff.followers && session.core.controller.is_some() && session.sending_controller().is_none();
        // A controller that comes back repeats its last state by itself, unless it had given control up by a frame that
        // was lost. It is asked with the next tick.
        if diff.returned || unasked || newly_reached && self.may_lack_a_state(session) {
            self.room.stream.resync();
        }
        if self.room.stream.needs_resync && !diff.returned {
            self.request_state(session);
        }
        self.pass_held();
        let stopped = self.stop_leaving(session);
        self.emit(before.as_deref(), session, &diff);
        if stopped {
            self.reload();
        }
    }

    /// Whether a node that was just reached may lack a state of this node.
    fn may_lack_a_state(&mut self, session: &Session) -> bool {
        let asked = std::mem::take(&mut self.room.stream.early_sync_request);
        let recently = self.env.now.store.saturating_sub(self.room.reports.latest.drove_at) < RECENT;
        asked || recently || self.is_recovering(session)
    }

    fn close_all(&mut self, reason: CloseReason) {
        self.room.control.local = None;
        for member in &self.room.members {
            self.out.put(Output::Close(&member.socket, reason));
        }
        let id = self.env.session;
        let event = match reason {
            CloseReason::SessionDeleted => RelayEvent::SessionDeleted(id),
            _ => RelayEvent::SessionExpired(id),
        };
        if !self.room.members.is_empty() {
            self.out.put(Output::Emit(event));
        }
    }

    /// Notes which other nodes have clients. Returns `true` if one of them is new: it may have missed recent states,
    /// and it may not know of this node yet, because two first joins at the same moment do not see each other.
    fn look_elsewhere(&mut self, session: &Session, version: u64) -> bool {
        let others = session.rosters.iter().filter(|(node, _)| *node != self.env.here);
        let live = others.filter(|(_, roster)| roster.clients.iter().any(|client| client.cut_off_at.is_none()));
        let elsewhere: Vec<_> = live.map(|(node, _)| node.clone()).collect();
        let known = std::mem::replace(&mut self.room.known.elsewhere, elsewhere);
        let passed = &self.room.stream.passed;
        let mut any = false;
        for node in self.room.known.elsewhere.iter().filter(|node| !known.contains(node)) {
            any = true;
            self.out.put(Output::Publish(node, Body::Changed { version }));
            if !passed.is_empty() {
                self.out.put(Output::Publish(node, Body::RecentStates(passed.iter().collect())));
            }
        }
        any
    }

    fn set_local_controller(&mut self, session: &Session, term: Option<u64>) {
        let must_be_flushed = self.room.must_be_flushed(session, self.env.here);
        let leaving = session.core.controller.as_ref().filter(|_| must_be_flushed);
        let here = session
            .sending_controller()
            .or(leaving)
            .filter(|controller| self.room.member(controller.place.connection).is_some());
        // A controller that was suspended while control was granted to it again is as certain as before.
        let granted = |controller: &LocalController| !controller.suspended || session.core.epoch > controller.epoch;
        let held = |controller: &LocalController| self.env.trust.covers(controller.term, self.env.now);
        let sure = self.room.control.local.filter(|controller| held(controller) && granted(controller));
        let unsure = self.doubts_controller(session, sure.map(|controller| controller.connection));
        if unsure {
            // The controller is claimed under no lease, and checked again until the doubt is over.
            (self.room.known.term, self.room.known.stale) = (Some(NO_TERM), true);
        }
        self.room.control.local = here.filter(|_| !unsure).zip(term).map(|(controller, term)| LocalController {
            connection: controller.place.connection,
            epoch: session.core.epoch,
            term,
            provisional: controller.provisional,
            suspended: false,
        });
        // Frames of an older epoch from another node come too late.
        self.room.stream.fence.raise(session.core.epoch);
    }

    fn notify_all(&mut self, diff: &Diff, session: &Session) {
        let places: HashMap<ConnectionId, &Client> =
            session.rosters.values().flat_map(|roster| &roster.clients).map(|c| (c.connection, c)).collect();
        self.silence_superseded(session);
        let (now, release) = (self.env.now, self.room.stream.release.take());
        let mut ahead = false;
        for member in self.room.members.iter_mut().filter(|member| !member.superseded) {
            let Some(me) = places.get(&member.connection).copied() else { continue };
            if !diff.left.is_empty() && !member.view.is_modern() {
                self.out.put(Output::HoldAfterLeave(&member.socket));
            }
            let news = Letter { me, session, now: now.store, release: release.as_ref() };
            let told = news.deliver(member, diff, now.local, self.out);
            // The controller goes on from the state that it sent before, when it was not the controller.
            ahead |= told && session.controls(member.connection) && member.states.is_ahead();
        }
        self.room.stream.needs_resync |= ahead;
    }

    /// Stops all frames to a socket that a newer socket of the same client has superseded. A socket with the handshake
    /// is closed. One without it stays open, and the newer one acknowledges what the older one was sent.
    fn silence_superseded(&mut self, session: &Session) {
        if session.core.superseded.is_empty() {
            return;
        }
        let mut pending: Vec<(ClientId, Option<Millis>)> = Vec::new();
        let out = &mut *self.out;
        self.room.members.retain_mut(|member| {
            let superseded = is_superseded(session, member.connection);
            if !superseded || std::mem::replace(&mut member.superseded, true) {
                return true;
            }
            let Some(legacy) = member.view.legacy() else {
                out.put(Output::Close(&member.socket, CloseReason::Evicted));
                return false;
            };
            pending.extend(member.client.alias.clone().map(|alias| (alias, legacy.acks.last())));
            true
        });
        for (alias, last) in pending {
            let newer = session.clients().find(|(_, client)| client.alias.as_ref() == Some(&alias));
            let member = newer.and_then(|(_, client)| self.room.member_mut(client.connection));
            if let Some(legacy) = member.and_then(|member| member.view.legacy_mut()) {
                legacy.acks.inherit(last);
            }
        }
    }

    /// Forwards a frame that waited for a grant, or drops it if no grant came.
    fn pass_held(&mut self) {
        let moving = self.room.known.view.as_ref().is_some_and(|view| view.session.core.transfer.is_some());
        let waiting =
            self.room.members.iter().filter(|member| member.waits_for_control()).map(|member| member.connection);
        for connection in waiting.collect::<Vec<_>>() {
            let drives = self.drives(connection);
            if moving && !drives {
                continue;
            }
            let Some(member) = self.room.member_mut(connection) else { continue };
            match member.take_held() {
                Some(frame) if drives && frame.kind == FrameType::StateUpdate => {
                    member.states.drove(frame.data_hash());
                    let seq = member.next_seq();
                    self.note_activity(true);
                    self.pass(connection, &frame, crate::route::Kind::State, seq);
                }
                // An offer must be in the document before it can be accepted.
                Some(frame) if drives => self.decide_frame(connection, frame),
                _ => {
                    self.count(super::Counted::Dropped);
                    // It got no states while it waited.
                    self.bring_up_to_date();
                }
            }
        }
    }

    fn emit(&mut self, before: Option<&Session>, after: &Session, diff: &Diff) {
        let id = self.env.session;
        let joined = diff.joined.iter().map(|client| RelayEvent::ClientConnected(id, client.clone()));
        let left = diff.left.iter().map(|client| RelayEvent::ClientDisconnected(id, client.clone()));
        let roles = diff.roles.iter().map(|(client, role)| RelayEvent::RoleChanged(id, client.clone(), *role));
        for event in joined.chain(left).chain(roles) {
            self.out.put(Output::Emit(event));
        }
        let from = before.and_then(|before| before.core.controller.as_ref());
        if let (Some(from), Some(to)) = (from, &after.core.controller)
            && from.client != to.client
        {
            let (from, to) = (from.client.clone(), to.client.clone());
            self.out.put(Output::Emit(RelayEvent::ControlTransferred { session: id, from, to }));
        }
    }
}

/// What one client is told about a document.
struct Letter<'a> {
    me: &'a Client,
    session: &'a Session,
    now: Millis,
    /// The `release_control` that ended an epoch, and its sender.
    release: Option<&'a (ConnectionId, Bytes)>,
}

impl Letter<'_> {
    /// Tells the client its changes. Returns `true` if there were any.
    fn deliver<S, T>(&self, member: &mut Member<S>, diff: &Diff, local: Millis, out: &mut impl Outputs<S, T>) -> bool {
        let (me, session) = (self.me, self.session);
        let drove = member.view.phase == Phase::Active;
        let notices = notices(&mut member.view, me, diff, session, local);
        // A store that has lost a write may know less of the client than this node.
        member.client = me.with_all_of(&member.client);
        let role = session.role(me);
        member.states.initial_push.take_if(|_| role == Role::Active);
        if drove && member.view.phase != Phase::Active {
            member.states.on_control_lost(member.view.is_modern());
        }
        let leaving = role == Role::Active && session.core.transfer.is_some();
        let accepted = if notices.is_empty() || leaving { None } else { member.accepted.take() };
        let by = session.core.controller.as_ref().map(|controller| controller.place.connection);
        let mut accepted = accepted.filter(|(source, _)| Some(*source) == by);
        let epoch = member.view.is_modern().then_some(session.core.epoch);
        for notice in &notices {
            if *notice == Notice::RequestSync {
                member.states.ask(None, local);
            }
            let original = match notice {
                Notice::AcceptControl(client) => {
                    accepted.take().map(|(_, text)| text).filter(|text| is_from(text, client.as_str()))
                }
                Notice::ReleaseControl(client) => self.release_by(client),
                _ => None,
            };
            let (kind, made) = self.render(notice, epoch);
            member.send(original.unwrap_or(made), kind, out);
        }
        // A client with the handshake learns of its loss by its role only; the frame that caused the loss follows.
        if let (Some((_, text)), Some(epoch), false) = (accepted, epoch, role == Role::Active) {
            let text = outgoing::with_members(&text, &[("epoch", epoch.0.into())]);
            member.send(text, FrameType::AcceptControl, out);
        }
        !notices.is_empty()
    }

    /// The frame by which this client ended the last epoch, if it did so by a frame.
    fn release_by(&self, client: &ClientId) -> Option<Bytes> {
        let ended = self.session.core.ended.as_ref().map(|ended| ended.connection);
        let text = self.release.filter(|(source, _)| Some(*source) == ended).map(|(_, text)| text.clone());
        text.filter(|text| is_from(text, client.as_str()))
    }

    fn render(&self, notice: &Notice, epoch: Option<Epoch>) -> (FrameType, Bytes) {
        let now = self.now;
        let (kind, client, data) = match notice {
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
                let data = serde_json::json!({ "fromClientId": self.me.name().as_str(), "timestamp": now });
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
