//! Carries out a decision that is in the store: tells all clients concerned and performs the effects.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::Step;
use super::decide::Decision;
use super::member::{Member, find};
use super::output::{Counted, Output, Outputs, Reply};
use super::parcel::Parcel;
use super::work::{Basis, Cause, Job};
use crate::control::{Direction, Effect, Event, Intent};
use crate::dialect::Belief;
use crate::ids::{ConnectionId, Epoch, NodeId, ResumeToken};
use crate::protocol::{CloseReason, ErrorCode, Frame, FrameType, PROTOCOL_VERSION, outgoing};
use crate::route::{Body, Kind, Route, Target};
use crate::session::{Place, Session, Status};

impl<S, T, O: Outputs<S, T>> Step<'_, '_, S, T, O> {
    /// Tells all clients concerned about a committed decision. `partial`: other nodes wrote in between, so the document
    /// has to be read again.
    pub(super) fn finish(&mut self, basis: Basis, decision: Decision, version: u64, partial: bool) {
        let Decision { session, effects, taken, write } = decision;
        let mut jobs = self.take_jobs(taken);
        let (before, session) = (&basis.stored.session, Arc::new(session));
        self.admit(&mut jobs, &effects, &session);
        self.note_beliefs(before, &session, &jobs, &effects);
        self.send_refusals(&session, &jobs, &effects);
        self.send_causes(&session, &jobs, &effects);
        let unannounced = std::mem::take(&mut self.room.known.unannounced);
        if write.is_some() || unannounced {
            self.announce(before, &session, version);
        }
        self.observe(&session, version, basis.term, &basis.lapsed);
        if partial {
            self.reload();
        }
        for (index, effect) in effects {
            self.perform(&session, &jobs[index], effect);
        }
        self.release_leavers(&jobs);
        self.notice_missing_places(&session);
        for job in jobs {
            self.reply(job, &session);
        }
        self.next_decision();
    }

    /// Adds a member for every admitted socket.
    fn admit(&mut self, jobs: &mut [Job<S, T>], effects: &[(usize, Effect)], session: &Session) {
        for (index, job) in jobs.iter_mut().enumerate() {
            let (Event::Join(join), Cause::Join(socket)) = (&job.event, &mut job.cause) else { continue };
            let refused = |effect: &(usize, Effect)| {
                effect.0 == index && matches!(&effect.1, Effect::Close(of, _) if *of == join.connection)
            };
            let known = session.client(join.connection);
            if let (Some((_, client)), false) = (known, effects.iter().any(refused))
                && let Some(socket) = socket.take()
            {
                if client.modern {
                    self.out.put(Output::HoldNothing(&socket));
                }
                // Most sessions have two sockets, and a vector that grows by itself begins with four places.
                if self.room.members.len() < 4 {
                    self.room.members.reserve_exact(1);
                }
                self.room.members.push(Member::new(socket, client.clone()));
            }
        }
    }

    /// Drops the sockets that left, once their last frames have passed.
    fn release_leavers(&mut self, jobs: &[Job<S, T>]) {
        for job in jobs {
            if let Event::Leave { connection, .. } = &job.event {
                self.room.members.retain(|member| member.connection != *connection);
            }
        }
    }

    /// Notices a socket whose place is missing in the document: the place is claimed with the next tick.
    fn notice_missing_places(&mut self, session: &Session) {
        let roster = session.rosters.get(self.env.here);
        let places: HashSet<ConnectionId> =
            roster.into_iter().flat_map(|roster| &roster.clients).map(|client| client.connection).collect();
        let missing = |member: &Member<S>| !member.superseded && !places.contains(&member.connection);
        self.room.known.stale |= self.room.members.iter().any(missing);
    }

    /// Records what the frames say about their senders' beliefs, before the senders are told the result.
    fn note_beliefs(&mut self, before: &Session, after: &Session, jobs: &[Job<S, T>], effects: &[(usize, Effect)]) {
        for (index, job) in jobs.iter().enumerate() {
            let (Event::Frame { connection, intent, .. }, Cause::Frame(_)) = (&job.event, &job.cause) else { continue };
            let Some(member) = self.room.member_mut(*connection) else { continue };
            member.spoke = true;
            if *intent == Intent::Coordinate(Direction::Passive) {
                member.states.initial_push = Some(after.core.epoch);
            }
            if let Some(belief) = Belief::of(intent, before.controls(*connection)) {
                member.view.believes(belief);
                // A session in doubt decides nothing, and a release that came to nothing leaves its sender ACTIVE.
                let in_doubt = |(of, effect): &(usize, Effect)| {
                    *of == index && matches!(effect, Effect::Reject(_, ErrorCode::StoreUnavailable))
                };
                member.view.retell |= effects.iter().any(in_doubt);
            }
        }
    }

    fn send_refusals(&mut self, after: &Session, jobs: &[Job<S, T>], effects: &[(usize, Effect)]) {
        for (index, effect) in effects {
            let (Effect::Reject(connection, code), Cause::Frame(frame)) = (effect, &jobs[*index].cause) else {
                continue;
            };
            self.reject(*connection, *code, frame.kind.wire());
            let is_state = frame.kind == FrameType::StateUpdate;
            // In a session in doubt nothing is decided. A controller goes on from its state, which may belong to its last
            // epoch. Neither has to do with a question that was asked before.
            if *code == ErrorCode::StoreUnavailable || is_state && after.controls(*connection) {
                self.room.stream.resync();
            }
            // The sender shows the state that it sent, so it must be sent the true one.
            self.room.stream.needs_resync |= is_state;
        }
    }

    /// Sends the frames that are told together with the change that they caused, ahead of its notices.
    fn send_causes(&mut self, after: &Session, jobs: &[Job<S, T>], effects: &[(usize, Effect)]) {
        for (index, effect) in effects {
            if let (Effect::ForwardToLoser(loser), Some((from, frame))) = (effect, jobs[*index].frame()) {
                self.route(from, (Kind::Accept, &frame.text), loser, after.core.epoch);
            }
        }
        let ended = after.core.ended.as_ref().map(|ended| ended.connection);
        for job in jobs.iter().filter(|job| matches!(job.event, Event::Frame { intent: Intent::Release, .. })) {
            let Some((from, frame)) = job.frame().filter(|(from, _)| Some(*from) == ended) else { continue };
            self.room.stream.release = Some((from, frame.text.clone()));
            let seq = self.room.member_mut(from).map(Member::next_seq).unwrap_or_default();
            let route = Route {
                source: from,
                epoch: after.core.epoch,
                seq,
                state_hash: 0,
                target: Target::Others,
                kind: Kind::Release,
            };
            self.publish_elsewhere(&route, &frame.text);
        }
    }

    /// Sends one client's `request_control` or `accept_control` to one place.
    fn route(&mut self, from: ConnectionId, (kind, text): (Kind, &Bytes), to: &Place, epoch: Epoch) {
        let Some(seq) = self.room.member_mut(from).map(Member::next_seq) else { return };
        if to.node != *self.env.here {
            let target = Target::Only(vec![to.connection]);
            let route = Route { source: from, epoch, seq, state_hash: 0, target, kind };
            return self.publish(&to.node, route, text.clone());
        }
        let Some(member) = find(&mut self.room.members, to.connection) else {
            return;
        };
        if kind == Kind::Accept {
            member.accepted = Some((from, text.clone()));
        } else {
            member.deliver(&mut Parcel::new(text.clone(), FrameType::RequestControl, epoch, seq), self.out);
        }
    }

    /// Tells the other nodes that the document has changed, also those that only the last view names: a write of which
    /// nobody was told may have removed them.
    fn announce(&mut self, before: &Session, after: &Session, version: u64) {
        let viewed = self.room.known.view.iter().flat_map(|view| view.session.rosters.keys());
        let nodes: BTreeSet<&NodeId> = before.rosters.keys().chain(after.rosters.keys()).chain(viewed).collect();
        for node in nodes.into_iter().filter(|node| *node != self.env.here) {
            self.out.put(Output::Publish(node, Body::Changed { version }));
        }
    }

    /// Performs an effect, after roles and presence are sent.
    fn perform(&mut self, after: &Session, job: &Job<S, T>, effect: Effect) {
        match effect {
            // These frames were sent before the roles.
            Effect::Reject(..) | Effect::ForwardToLoser(_) => {}
            Effect::Count(transition) => self.count(Counted::Control(transition)),
            Effect::Close(connection, reason) => self.close(connection, reason),
            Effect::Drop => self.count(Counted::Dropped),
            Effect::HoldFrame | Effect::ForwardToOthers | Effect::PassState | Effect::PassAnswer => {
                if let Some((from, frame)) = job.frame() {
                    self.let_through(from, frame, &effect);
                }
            }
            Effect::AskController { controller, claimant } => {
                if let Some((from, frame)) = job.frame() {
                    let request = self.request_of(frame, claimant.as_str(), after);
                    self.route(from, (Kind::Other, &request), &controller, after.core.epoch);
                }
            }
        }
    }

    fn close(&mut self, connection: ConnectionId, reason: CloseReason) {
        if let Some(index) = self.room.members.iter().position(|member| member.connection == connection) {
            let member = self.room.members.remove(index);
            self.out.put(Output::Close(&member.socket, reason));
        }
    }

    fn let_through(&mut self, from: ConnectionId, frame: &Frame, effect: &Effect) {
        if self.room.controls(from) && !self.drives(from) {
            if frame.kind == FrameType::StateUpdate {
                self.room.stream.resync();
            }
            return self.reject(from, ErrorCode::StoreUnavailable, frame.kind.wire());
        }
        let Some(member) = self.room.member_mut(from) else { return };
        if *effect == Effect::HoldFrame {
            if let Some(legacy) = member.view.legacy_mut() {
                legacy.held = Some(frame.clone());
            }
            return;
        }
        let seq = member.next_seq();
        match effect {
            Effect::PassAnswer => {
                let askers = member.states.answered();
                self.note_activity(true);
                self.pass_answer(from, frame, &askers, seq);
            }
            Effect::PassState => {
                member.states.drove(frame.data_hash());
                self.note_activity(true);
                self.pass(from, frame, Kind::State, seq);
            }
            _ => {
                self.note_activity(true);
                self.pass(from, frame, Kind::Other, seq);
            }
        }
    }

    /// Builds the `request_control` for the controller: the claimant's own frame in its name, or a new one for a claim
    /// of another type.
    fn request_of(&self, frame: &Frame, claimant: &str, after: &Session) -> Bytes {
        if frame.kind == FrameType::RequestControl {
            return match frame.client_id.as_deref() {
                Some(named) if named == claimant => frame.text.clone(),
                _ => outgoing::with_members(&frame.text, &[("clientId", claimant.into())]),
            };
        }
        let now = self.env.now.store;
        let controller = after.core.controller.as_ref().map(|controller| controller.client.as_str());
        let data = serde_json::json!({
            "requestingClientId": claimant, "targetClientId": controller, "requestTimestamp": now,
        });
        outgoing::frame(FrameType::RequestControl, claimant, Some(data), now)
    }

    fn reply(&mut self, Job { event, cause, ticket }: Job<S, T>, session: &Session) {
        let reply = match (event, cause) {
            (Event::Join(join), _) => match self.room.member(join.connection) {
                Some(member) => Reply::Joined { resumed: member.view.is_modern() },
                None if session.core.status != Status::Active => Reply::Closed(CloseReason::SessionNotFound),
                None => Reply::Closed(CloseReason::SessionFull),
            },
            (Event::Delete, _) if session.core.status == Status::Expired => Reply::Missing,
            (Event::Frame { connection, intent, .. }, Cause::Frame(frame)) => {
                if intent == Intent::Speak {
                    self.forward_first(connection, &frame);
                }
                if let Some(member) = self.room.member_mut(connection) {
                    member.note_sent(&frame);
                }
                return self.decided(connection);
            }
            (Event::Handshake { connection, .. }, Cause::Handshake(token)) => {
                self.acknowledge(connection, &token);
                return self.decided(connection);
            }
            _ => Reply::Done,
        };
        if let Some(ticket) = ticket {
            self.out.put(Output::Reply(ticket, reply));
        }
    }

    /// Answers a handshake that the document knows.
    fn acknowledge(&mut self, connection: ConnectionId, token: &ResumeToken) {
        let (role, epoch, now) = (self.room.role(connection), self.room.epoch(), self.env.now.store);
        let Some(member) = find(&mut self.room.members, connection) else { return };
        member.spoke = true;
        let resumed = member.view.handshake();
        self.out.put(Output::HoldNothing(&member.socket));
        let ack = serde_json::json!({
            "type": "protocol_ack", "accepted": true, "protocol_version": PROTOCOL_VERSION, "timestamp": now,
            "clientId": member.client.id.as_str(), "resume": token.reveal(),
            "resumed": resumed, "epoch": epoch, "role": role,
            "capabilities": ["resume", "epoch", "seq", "ping"],
        });
        member.send(ack.to_string().into(), FrameType::ProtocolAck, self.out);
    }
}

impl<S, T> Job<S, T> {
    /// The frame that this job decides, and its sender.
    pub(super) fn frame(&self) -> Option<(ConnectionId, &Frame)> {
        match (&self.event, &self.cause) {
            (Event::Frame { connection, .. }, Cause::Frame(frame)) => Some((*connection, frame)),
            _ => None,
        }
    }
}
