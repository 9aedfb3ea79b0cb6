//! Turns a document and the queued jobs into one write and its effects.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::Relay;
use super::queue::Job;
use crate::control::{Context, Effect, Event, Outcome, apply};
use crate::ids::{ConnectionId, Millis, NodeId, SessionId};
use crate::session::{Client, Roster, Session, Status};
use crate::store::{Stored, Write, WriteId};

/// How long the store keeps a document beyond its end. The rules decide when a session ends, not the store's clock.
const SLACK: Millis = 60_000;

/// A decision that is not written yet.
pub(super) struct Decision {
    /// The document after the decision.
    pub(super) session: Session,
    /// The effects, each with the index of its job. Repairs come first and have no effects.
    pub(super) effects: Vec<(usize, Effect)>,
    /// How many jobs the decision covers.
    pub(super) taken: usize,
    /// The write; `None` if nothing changed.
    pub(super) write: Option<Write>,
}

impl Relay {
    /// Applies repairs and jobs to a document. A job that moves control is decided alone, because each change of
    /// control has to be announced.
    pub(super) fn decide(
        &self,
        id: SessionId,
        stored: &Stored,
        jobs: &VecDeque<Job>,
        context: Context<'_>,
        term: Option<u64>,
    ) -> Decision {
        let mut session = stored.session.clone();
        let mut compared = false;
        for repair in self.repairs(id, &session, jobs, term) {
            session = apply(&session, &repair, context).session;
            compared |= repair.reads_whole_document();
        }
        let (mut effects, mut taken) = (Vec::new(), 0);
        for (index, job) in jobs.iter().enumerate() {
            let Outcome { session: after, effects: new } = apply(&session, &job.event, context);
            let moves =
                after.core.controller != session.core.controller || after.core.transfer != session.core.transfer;
            if moves && index > 0 {
                break;
            }
            session = after;
            effects.extend(new.into_iter().map(|effect| (index, effect)));
            taken = index + 1;
            if moves {
                break;
            }
        }
        compared |= jobs.iter().take(taken).any(|job| job.event.reads_whole_document());
        let write = self.write(id, stored, &session, compared, context.now);
        Decision { session, effects, taken, write }
    }

    /// Returns the events that bring the sockets of this node and its roster back into agreement after a fault.
    fn repairs(&self, id: SessionId, session: &Session, jobs: &VecDeque<Job>, term: Option<u64>) -> Vec<Event> {
        let Some(room) = self.inner.hub.find(id) else { return Vec::new() };
        let state = room.lock();
        let about: HashSet<ConnectionId> = jobs
            .iter()
            .filter_map(|job| match &job.event {
                Event::Join(join) => Some(join.connection),
                Event::Leave { connection, .. } => Some(*connection),
                _ => None,
            })
            .collect();
        let empty = Roster::default();
        let roster = session.rosters.get(self.node()).unwrap_or(&empty);
        let here: HashSet<ConnectionId> = state.members.iter().map(|member| member.connection).collect();
        let ghosts = roster.clients.iter().filter(|client| {
            client.cut_off_at.is_none() && !here.contains(&client.connection) && !about.contains(&client.connection)
        });
        let mut events: Vec<Event> =
            ghosts.map(|ghost| Event::Leave { connection: ghost.connection, lost: true }).collect();
        // Without a lease no place is claimed. After a lapse all places are claimed, because other nodes may have given
        // them up since.
        let Some(term) = term else { return events };
        let lapsed = state.term.is_some_and(|claimed| claimed != term);
        let living = roster.clients.iter().filter(|client| client.cut_off_at.is_none());
        let known: HashSet<ConnectionId> = living.map(|client| client.connection).collect();
        let missing = state.members.iter().filter(|member| lapsed || !known.contains(&member.connection));
        // A client that may have lost control to a client that the store forgot is claimed once the doubt is over.
        let sure = self.confirmed_controller(&state);
        let unsure = self.doubts_controller(session, sure);
        let Some(view) = &state.view else { return events };
        let mut missing: Vec<Client> = missing
            .filter(|member| !(about.contains(&member.connection) || unsure && session.controls(member.connection)))
            .filter_map(|member| {
                let member = member.lock();
                member.client.clone().filter(|_| !member.superseded)
            })
            .map(|client| Client { given: view.session.assignment(&client), cut_off_at: None, ..client })
            .collect();
        let doubtful = self.inner.presence.may_have_lost_data();
        if doubtful {
            missing.extend(self.forgotten_absentees(&view.session, session));
        }
        if !missing.is_empty() {
            let held = sure.filter(|held| doubtful && here.contains(held));
            events.push(Event::Rejoin { clients: missing, held });
        }
        // The clients get their places first, because one of them may be the controller.
        if doubtful {
            events.push(Event::RestoreCore(Box::new(view.session.core.clone())));
        }
        events
    }

    /// The clients of this node that are cut off, may come back, and are missing in the store.
    fn forgotten_absentees(&self, view: &Session, stored: &Session) -> Vec<Client> {
        let of = |session: &Session| session.rosters.get(self.node()).cloned().unwrap_or_default().clients;
        let known: HashSet<ConnectionId> = of(stored).iter().map(|client| client.connection).collect();
        let absent = of(view)
            .into_iter()
            .filter(|client| client.cut_off_at.is_some() && view.client(client.connection).is_some());
        let forgotten = absent.filter(|client| !known.contains(&client.connection));
        forgotten.map(|client| Client { given: view.assignment(&client), ..client }).collect()
    }

    /// Builds the write of a decision. `compared`: the decision used the whole document.
    fn write(&self, id: SessionId, stored: &Stored, after: &Session, compared: bool, now: Millis) -> Option<Write> {
        let before = &stored.session;
        // No client may control under a core that an unresolved write of this node can still change. A write that
        // replaces the core rules that out.
        let unresolved_write =
            self.inner.hub.find(id).and_then(|room| room.lock().unresolved_write) == Some(stored.base.write);
        let core = (unresolved_write || before.core != after.core).then(|| (after.core.clone(), stored.base.clone()));
        let nodes: HashSet<&NodeId> = before.rosters.keys().chain(after.rosters.keys()).collect();
        let changed = nodes.into_iter().filter(|node| before.rosters.get(*node) != after.rosters.get(*node));
        let rosters: Vec<(NodeId, Roster)> =
            changed.map(|node| (node.clone(), after.rosters.get(node).cloned().unwrap_or_default())).collect();
        if core.is_none() && rosters.is_empty() {
            return None;
        }
        // Another node's roster may only be written if nothing else has changed since it was read.
        let others = rosters.iter().any(|(node, _)| node != self.node());
        let core = core.or_else(|| (others || compared).then(|| (after.core.clone(), stored.base.clone())));
        Some(Write { core, rosters, id: WriteId::random(), keep: keep(after, now) })
    }
}

/// How long the store keeps this document.
pub(super) fn keep(session: &Session, now: Millis) -> Duration {
    let end = match session.core.status {
        Status::Active | Status::Expired => session.expires_at(),
        // A tombstone lasts as long as the session could have, so that no late write restores the session.
        Status::Deleted => session.info.ends_at,
    };
    Duration::from_millis(end.saturating_sub(now) + SLACK)
}
