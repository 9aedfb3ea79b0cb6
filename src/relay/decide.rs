//! A document and what waits for a decision become a write and what follows from it.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::Relay;
use super::queue::Job;
use crate::control::{Context, Effect, Event, Outcome, apply};
use crate::ids::{ConnectionId, Millis, NodeId, SessionId};
use crate::session::{Client, Roster, Session, Status};
use crate::store::{Stored, Write, WriteId};

/// How long the store keeps a document beyond its end, so that the rules and not the store's clock decide when it ends.
const SLACK: Millis = 60_000;

/// A decision that has not been written yet.
pub(super) struct Decision {
    /// The document as it will be.
    pub(super) session: Session,
    /// The effects of the job with this index; repairs come first and have none.
    pub(super) effects: Vec<(usize, Effect)>,
    /// How many jobs are decided by it.
    pub(super) taken: usize,
    /// What is to be written; `None` if nothing changed.
    pub(super) write: Option<Write>,
}

impl Relay {
    /// Applies repairs and jobs to a document. A job that moves control is decided alone: each change has to be told.
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

    /// The sockets of this node and its roster should agree; where a fault has put them apart, they are made to.
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
        // Without a lease nobody is claimed; after a lapse everybody is, for others may have given them up since.
        let Some(term) = term else { return events };
        let lapsed = state.term.is_some_and(|claimed| claimed != term);
        let living = roster.clients.iter().filter(|client| client.cut_off_at.is_none());
        let known: HashSet<ConnectionId> = living.map(|client| client.connection).collect();
        let missing = state.members.iter().filter(|member| lapsed || !known.contains(&member.connection));
        // Whoever may have lost control to somebody whom the store forgot is claimed when that is out of doubt.
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
        // After the clients have their places, for one of them may be the holder.
        if doubtful {
            events.push(Event::RestoreCore(Box::new(view.session.core.clone())));
        }
        events
    }

    /// The clients of this node that are cut off and may come back, and that the store has forgotten.
    fn forgotten_absentees(&self, view: &Session, stored: &Session) -> Vec<Client> {
        let of = |session: &Session| session.rosters.get(self.node()).cloned().unwrap_or_default().clients;
        let known: HashSet<ConnectionId> = of(stored).iter().map(|client| client.connection).collect();
        let absent = of(view)
            .into_iter()
            .filter(|client| client.cut_off_at.is_some() && view.client(client.connection).is_some());
        let forgotten = absent.filter(|client| !known.contains(&client.connection));
        forgotten.map(|client| Client { given: view.assignment(&client), ..client }).collect()
    }

    /// What is to be written of a decision. `compared`: it was made on the whole document.
    fn write(&self, id: SessionId, stored: &Stored, after: &Session, compared: bool, now: Millis) -> Option<Write> {
        let before = &stored.session;
        // Nobody may drive by a core over which a write of this node may yet land. One that replaces it forestalls that.
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
        // The roster of another node may only be written by somebody who knows that nothing else happened since.
        let others = rosters.iter().any(|(node, _)| node != self.node());
        let core = core.or_else(|| (others || compared).then(|| (after.core.clone(), stored.base.clone())));
        Some(Write { core, rosters, id: WriteId::random(), keep: keep(after, now) })
    }
}

/// How long the store keeps this document.
pub(super) fn keep(session: &Session, now: Millis) -> Duration {
    let end = match session.core.status {
        Status::Active | Status::Expired => session.expires_at(),
        // A tombstone stays as long as the session could have, so that no late writer brings it back.
        Status::Deleted => session.info.ends_at,
    };
    Duration::from_millis(end.saturating_sub(now) + SLACK)
}
