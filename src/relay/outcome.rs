//! Carries out a decision that is in the store: tells all clients concerned and performs the effects.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::Relay;
use super::decide::Decision;
use super::queue::{Job, Reply, Standing};
use crate::broker::{Body, Kind, Message, Route, Target};
use crate::control::{Direction, Effect, Event, Intent};
use crate::hub::{Member, Parcel, Room};
use crate::ids::{Epoch, NodeId, SessionId};
use crate::protocol::{CloseReason, ErrorCode, Frame, FrameType, outgoing};
use crate::reconcile::Belief;
use crate::session::{Place, Session, Status};

impl Relay {
    /// Tells all clients concerned about a committed decision.
    pub(super) fn finish(
        &self,
        id: SessionId,
        jobs: &mut VecDeque<Job>,
        before: &Session,
        decision: Decision,
        Standing { version, term, partial }: Standing,
    ) {
        let Decision { session, effects, taken, write } = decision;
        let taken: Vec<Job> = jobs.drain(..taken).collect();
        let session = Arc::new(session);
        let room = self.admit_members(id, &taken, &effects, &session);
        note_beliefs(before, &taken);
        for (index, effect) in &effects {
            if let Effect::Reject(_, code) = effect
                && let Some((member, frame)) = &taken[*index].cause
            {
                self.reject(member, *code, frame.kind.wire());
                // A client without the handshake shows the state that it sent, so it must be sent the true one.
                if frame.kind == FrameType::StateUpdate && !member.lock().client_view.modern {
                    member.room.lock().needs_resync = true;
                }
            }
        }
        self.stash(&session, room.as_deref(), &taken, &effects);
        if write.is_some() {
            self.announce(id, before, &session, version);
        }
        if let Some(room) = &room {
            self.observe(room, &session, version, term);
            if partial {
                self.refresh(room);
            }
        }
        for (index, effect) in effects {
            self.perform(&session, room.as_ref(), &taken[index], effect);
        }
        self.reply(taken, &session, room.as_deref());
    }

    /// Adds a member for every admitted socket, and removes the sockets that left from the room.
    fn admit_members(
        &self,
        id: SessionId,
        taken: &[Job],
        effects: &[(usize, Effect)],
        session: &Session,
    ) -> Option<Arc<Room>> {
        for (index, job) in taken.iter().enumerate() {
            match &job.event {
                Event::Join(join) => {
                    let refused = |effect: &(usize, Effect)| {
                        effect.0 == index && matches!(&effect.1, Effect::Close(of, _) if *of == join.connection)
                    };
                    let known = session.client(join.connection);
                    if let (Some((_, client)), false) = (known, effects.iter().any(refused)) {
                        let room = self.inner.hub.open(id);
                        let member = Arc::new(Member::new(join.connection, room.clone()));
                        let mut state = member.lock();
                        state.client_view.modern = client.modern;
                        state.client = Some(client.clone());
                        drop(state);
                        if client.modern {
                            member.outbound.speaks_modern();
                        }
                        room.lock().members.push(member);
                    }
                }
                Event::Leave { connection, .. } => {
                    if let Some(room) = self.inner.hub.find(id) {
                        room.lock().remove(*connection);
                    }
                }
                Event::Frame { .. } | Event::Rejoin { .. } | Event::RestoreCore(_) => {}
                Event::Handshake { .. } | Event::Delete | Event::Tick => {}
            }
        }
        self.inner.metrics.sessions.set(i64::try_from(self.inner.hub.len()).unwrap_or(i64::MAX));
        self.inner.hub.find(id)
    }

    /// Stores the frames that are sent together with the change that they caused, ahead of its notices.
    fn stash(&self, after: &Session, room: Option<&Room>, taken: &[Job], effects: &[(usize, Effect)]) {
        for (index, effect) in effects {
            if let Effect::ForwardToLoser(loser) = effect
                && let Some((member, frame)) = &taken[*index].cause
            {
                self.route(room, member, (Kind::Accept, &frame.text), loser, after.core.epoch);
            }
        }
        let ended = after.core.ended.as_ref().map(|ended| ended.connection);
        for job in taken.iter().filter(|job| matches!(job.event, Event::Frame { intent: Intent::Release, .. })) {
            let Some((member, frame)) = job.cause.as_ref().filter(|(member, _)| Some(member.connection) == ended)
            else {
                continue;
            };
            let mut state = member.room.lock();
            state.release = Some((member.connection, frame.text.clone()));
            let (source, epoch, seq) = (member.connection, after.core.epoch, member.lock().next_seq());
            for node in &state.elsewhere {
                let target = Target::Others;
                let route = Route { source, epoch, seq, state_hash: 0, target, kind: Kind::Release };
                self.publish(node, member.room.id, route, frame.text.clone());
            }
        }
    }

    /// Sends one client's `request_control` or `accept_control` to one place.
    fn route(&self, room: Option<&Room>, from: &Member, (kind, text): (Kind, &Bytes), to: &Place, epoch: Epoch) {
        let seq = from.lock().next_seq();
        if to.node != *self.node() {
            let (source, target) = (from.connection, Target::Only(vec![to.connection]));
            let route = Route { source, epoch, seq, state_hash: 0, target, kind };
            return self.publish(&to.node, from.room.id, route, text.clone());
        }
        let Some(member) = room.and_then(|room| room.lock().member(to.connection).cloned()) else { return };
        if kind == Kind::Accept {
            member.lock().accepted = Some((from.connection, text.clone()));
        } else {
            let mut parcel = Parcel::new(text.clone(), FrameType::RequestControl, epoch, seq);
            member.deliver(&mut parcel, &self.inner.settings.queue);
        }
    }

    /// Tells the other nodes that the document has changed.
    fn announce(&self, id: SessionId, before: &Session, after: &Session, version: u64) {
        let nodes: BTreeSet<&NodeId> = before.rosters.keys().chain(after.rosters.keys()).collect();
        for node in nodes.into_iter().filter(|node| *node != self.node()) {
            self.inner.broker.publish(node, Message { session: id, body: Body::Changed { version } });
        }
    }

    /// Performs an effect, after roles and presence are sent.
    fn perform(&self, after: &Session, room: Option<&Arc<Room>>, job: &Job, effect: Effect) {
        match effect {
            // These frames were sent before the roles.
            Effect::Reject(..) | Effect::ForwardToLoser(_) => {}
            Effect::Count(transition) => self.inner.metrics.transition(transition),
            Effect::Close(connection, reason) => {
                let member = room.and_then(|room| room.lock().member(connection).cloned());
                if let Some(member) = member {
                    member.outbound.close(reason);
                    member.room.lock().remove(connection);
                }
            }
            Effect::Drop => self.inner.metrics.dropped.inc(),
            Effect::HoldFrame | Effect::ForwardToOthers | Effect::PassState | Effect::PassAnswer => {
                if let Some((member, frame)) = &job.cause {
                    self.let_through(member, frame, &effect);
                }
            }
            Effect::AskController { controller, claimant } => {
                if let Some((member, frame)) = &job.cause {
                    let request = self.request_of(frame, claimant.as_str(), after);
                    let room = room.map(AsRef::as_ref);
                    self.route(room, member, (Kind::Other, &request), &controller, after.core.epoch);
                }
            }
        }
    }

    fn let_through(&self, member: &Arc<Member>, frame: &Frame, effect: &Effect) {
        let mut room = member.room.lock();
        let controls = room.view.as_ref().is_some_and(|view| view.session.controls(member.connection));
        if controls && !self.drives(&room, member.connection) {
            if frame.kind == FrameType::StateUpdate {
                (room.needs_resync, room.asked) = (true, None);
            }
            drop(room);
            return self.reject(member, ErrorCode::StoreUnavailable, frame.kind.wire());
        }
        let mut state = member.lock();
        if *effect == Effect::HoldFrame {
            state.held = Some(frame.clone());
            return;
        }
        let seq = state.next_seq();
        let askers = match effect {
            Effect::PassAnswer => Some(state.answered()),
            Effect::PassState => {
                state.drove(frame.data_hash());
                None
            }
            _ => None,
        };
        drop(state);
        self.note_activity(&mut room, true);
        match askers {
            Some(askers) => self.pass_answer(&mut room, member, frame, &askers, seq),
            None if *effect == Effect::PassState => self.pass(&mut room, member, frame, Kind::State, seq),
            None => self.pass(&mut room, member, frame, Kind::Other, seq),
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
        let controller = after.core.controller.as_ref().map(|controller| controller.client.as_str());
        let data = serde_json::json!({
            "requestingClientId": claimant, "targetClientId": controller, "requestTimestamp": self.now(),
        });
        outgoing::frame(FrameType::RequestControl, claimant, Some(data), self.now())
    }

    fn reply(&self, taken: Vec<Job>, session: &Session, room: Option<&Room>) {
        for Job { event, cause, reply, .. } in taken {
            let answer = match &event {
                Event::Join(join) => match room.and_then(|room| room.lock().member(join.connection).cloned()) {
                    Some(member) => Reply::Joined(member),
                    None if session.core.status != Status::Active => Reply::Closed(CloseReason::SessionNotFound),
                    None => Reply::Closed(CloseReason::SessionFull),
                },
                Event::Delete if session.core.status == Status::Expired => Reply::Missing,
                Event::Frame { intent: Intent::Speak, .. } => {
                    if let Some((member, frame)) = &cause {
                        self.forward_first(member, frame);
                    }
                    Reply::Done
                }
                _ => Reply::Done,
            };
            // The receiver may be gone.
            let _ = reply.send(answer);
        }
    }
}

/// Records what the frames say about their senders' beliefs, before the senders are told the result.
fn note_beliefs(before: &Session, taken: &[Job]) {
    for job in taken {
        let (Event::Frame { connection, intent, .. }, Some((member, _))) = (&job.event, &job.cause) else { continue };
        let mut state = member.lock();
        state.spoke = true;
        state.initial_push |= *intent == Intent::Coordinate(Direction::Passive);
        if let Some(belief) = Belief::of(intent, before.controls(*connection)) {
            state.client_view.believes(belief);
        }
    }
}
