//! Turns a document and the jobs that wait into one write and its effects.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::output::Outputs;
use super::work::Basis;
use super::{LocalController, Step, keep};
use crate::control::{Context, Effect, Event, Outcome, apply};
use crate::ids::{ConnectionId, NodeId};
use crate::session::{Client, Roster, Session};
use crate::stored::{Write, WriteId};

/// A decision that is not written yet.
#[derive(Clone, Debug, PartialEq, Eq)]
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

impl<S, T, O: Outputs<S, T>> Step<'_, '_, S, T, O> {
    /// Applies repairs and jobs to a document. A job that moves control is decided alone, because each change of
    /// control has to be announced.
    pub(super) fn decide(&mut self, basis: &Basis) -> Decision {
        let flushed = self.room.flushed(&basis.stored.session, self.env.here);
        let context = Context {
            here: self.env.here,
            now: self.env.now.store,
            lapsed: &basis.lapsed,
            flushed,
            rules: self.env.rules,
        };
        let mut session = basis.stored.session.clone();
        for repair in self.repairs(basis) {
            session = apply(&session, &repair, context).session;
        }
        let (mut effects, mut taken) = (Vec::new(), 0);
        for (index, job) in self.room.work.batch().enumerate() {
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
        let write = self.write(basis, &session);
        Decision { session, effects, taken, write }
    }

    /// Returns the events that bring the sockets of this node and its roster back into agreement after a fault.
    fn repairs(&self, Basis { stored, term, .. }: &Basis) -> Vec<Event> {
        let session = &stored.session;
        let about: HashSet<ConnectionId> = self.room.work.batch().filter_map(|job| job.event.socket()).collect();
        let empty = Roster::default();
        let roster = session.rosters.get(self.env.here).unwrap_or(&empty);
        let here: HashSet<ConnectionId> = self.room.members.iter().map(|member| member.connection).collect();
        let living = || roster.clients.iter().filter(|client| client.cut_off_at.is_none());
        let ghosts =
            living().filter(|client| !here.contains(&client.connection) && !about.contains(&client.connection));
        let mut events: Vec<Event> =
            ghosts.map(|ghost| Event::Leave { connection: ghost.connection, lost: true }).collect();
        // Without a lease no place is claimed. After a lapse all places are claimed, because other nodes may have given
        // them up since.
        let (Some(term), Some(view)) = (term, &self.room.known.view) else { return events };
        let recovering = self.is_recovering(session);
        let lapsed = self.room.known.term.is_some_and(|claimed| claimed != *term);
        let known: HashMap<ConnectionId, &Client> = living().map(|client| (client.connection, client)).collect();
        let complete = |ours: &Client| known.get(&ours.connection).is_some_and(|stored| stored.knows_all_of(ours));
        let missing = self.room.members.iter().filter(|member| lapsed || !complete(&member.client));
        // A client that may have lost control to a client that the store forgot is claimed once the doubt is over.
        let sure = self.confirmed_controller();
        let unsure = self.doubts_controller(session, sure);
        let missing = missing.filter(|member| {
            !(about.contains(&member.connection) || unsure && session.controls(member.connection) || member.superseded)
        });
        let as_it_was =
            |client: &Client| Client { given: view.session.assignment(client), cut_off_at: None, ..client.clone() };
        let mut missing: Vec<Client> = missing.map(|member| as_it_was(&member.client)).collect();
        if recovering {
            missing.extend(self.forgotten_absentees(&view.session, session));
        }
        if !missing.is_empty() {
            let held = sure.filter(|held| recovering && here.contains(held));
            events.push(Event::Rejoin { clients: missing, held });
        }
        // The clients get their places first, because one of them may be the controller.
        if recovering {
            events.push(Event::RestoreCore(Box::new(view.session.core.clone())));
        }
        events
    }

    /// The clients of this node without a socket that may come back and are missing in the store: those that were cut off,
    /// and those whose end could not be written.
    fn forgotten_absentees(&self, view: &Session, stored: &Session) -> Vec<Client> {
        let of = |session: &Session| session.rosters.get(self.env.here).cloned().unwrap_or_default().clients;
        let known: HashSet<ConnectionId> = of(stored).iter().map(|client| client.connection).collect();
        let absent = of(view).into_iter().filter(|client| {
            let gone = self.room.member(client.connection).is_none() && client.may_return();
            gone && view.client(client.connection).is_some() && !known.contains(&client.connection)
        });
        let as_cut_off = |client: Client| Client {
            given: view.assignment(&client),
            cut_off_at: client.cut_off_at.or(Some(self.env.now.store)),
            ..client
        };
        absent.map(as_cut_off).collect()
    }

    /// Builds the write of a decision, if it changes anything. The core is written in any case, over the one that the
    /// decision was made on: so of two decisions that are made at once, one is made again and sees the other, and a write
    /// whose answer was lost comes to nothing once another was committed.
    fn write(&mut self, basis: &Basis, after: &Session) -> Option<Write> {
        let (before, base) = (&basis.stored.session, &basis.stored.base);
        let nodes: BTreeSet<&NodeId> = before.rosters.keys().chain(after.rosters.keys()).collect();
        let changed = nodes.into_iter().filter(|node| before.rosters.get(*node) != after.rosters.get(*node));
        let rosters: Vec<(NodeId, Roster)> =
            changed.map(|node| (node.clone(), after.rosters.get(node).cloned().unwrap_or_default())).collect();
        // No client may control under a document that an unresolved write of this node can still change.
        let unresolved = self.room.known.unresolved_write == Some(base.write);
        if before.core == after.core && rosters.is_empty() && !unresolved {
            return None;
        }
        let id = WriteId::from_bits((self.env.draw)());
        let (core, base) = (after.core.clone(), base.clone());
        Some(Write { core, base, rosters, id, keep: keep(after, self.env.now.store) })
    }

    /// Before control can leave a client of this node, its states stop passing until a document is read after that
    /// write.
    pub(super) fn suspend_controller(&mut self, after: &Session, write: &Write) {
        self.room.known.unresolved_write = Some(write.base.write);
        let Some(controller) = self.room.control.local else { return };
        let stays = after.controls(controller.connection) && after.core.epoch == controller.epoch;
        // A client that is flushed goes on until its frames are read. It then loses control by another write.
        let moves = after.core.transfer.is_some() && !self.room.must_be_flushed(after, self.env.here);
        let leaves = !stays || moves || after.core.status != crate::session::Status::Active;
        let suspended = controller.suspended || leaves;
        self.room.control.local = Some(LocalController { suspended, ..controller });
    }

    /// The local client that certainly had control when the store lost its data: it was the controller on this node, no
    /// write was taking control from it, and the lease has not lapsed since, so that no other client can have taken
    /// control.
    pub(super) fn confirmed_controller(&self) -> Option<ConnectionId> {
        let held = |controller: &LocalController| self.env.trust.covers(controller.term, self.env.now);
        let sure = self.room.control.local.filter(|controller| !controller.suspended && held(controller));
        sure.map(|controller| controller.connection)
    }

    /// Whether the document names a client of this node as the controller and this node is not certain of it, because
    /// the store may have forgotten a grant to another client. `sure`: the confirmed controller.
    pub(super) fn doubts_controller(&self, session: &Session, sure: Option<ConnectionId>) -> bool {
        let own = session.core.controller.as_ref().filter(|controller| controller.place.node == *self.env.here);
        let connection = own.map(|controller| controller.place.connection);
        connection.is_some() && connection != sure && self.is_recovering(session)
    }
}
