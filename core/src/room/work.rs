//! The queue of a room, and its conversation with the store.
//!
//! The jobs that wait when the document is read are decided together, as far as they fit into one write. Jobs that come
//! later wait for the next read.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};

use super::decide::Decision;
use super::output::{Output, Outputs, Reply, Request};
use super::{Room, Step};
use crate::control::{Event, Stamp};
use crate::dialect::Belief;
use crate::ids::{ConnectionId, NodeId, ResumeToken};
use crate::protocol::{CloseReason, ErrorCode, Frame};
use crate::session::{Session, Status};
use crate::stored::{Committed, Loaded, Stored};

/// How often a room decides again before it gives up. Each conflict means that another node's write was committed.
const MAX_ATTEMPTS: u32 = 64;

/// A job to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job<S, T> {
    pub(super) event: Event,
    pub(super) cause: Cause<S>,
    /// Who waits for the reply.
    pub(super) ticket: Option<T>,
}

/// What a job is about, besides its event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Cause<S> {
    /// Nothing.
    None,
    /// The socket that joins.
    Join(Option<S>),
    /// The frame of the event's sender.
    Frame(Frame),
    /// A handshake, which is answered with this token.
    Handshake(ResumeToken),
}

/// What a decision is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Basis {
    /// The document, without claims that may belong to an epoch that the store has forgotten.
    pub(super) stored: Stored,
    /// The lease that the node held before it read the document.
    pub(super) term: Option<u64>,
    /// The dead nodes.
    pub(super) lapsed: BTreeSet<NodeId>,
}

/// What a room waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
enum Awaited {
    /// A job.
    #[default]
    Job,
    /// The document, read under this lease.
    Document(Option<u64>),
    /// News of the nodes that seemed dead.
    Heartbeats(Box<Basis>),
    /// The answer to a write.
    Write(Box<(Basis, Decision)>),
    /// The store's lineage, because there is no document.
    Lineage,
    /// The creation of a document that the store has lost, or the end of a pause.
    Retry,
}

/// The jobs of a room, and what it waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Work<S, T> {
    jobs: VecDeque<Job<S, T>>,
    /// How many of the jobs waited when the document was read.
    batch: usize,
    awaited: Awaited,
    attempt: u32,
    /// A decision whose write got no answer.
    unknown: Option<Box<(Basis, Decision)>>,
    /// A job to read the document waits, and the document has not been read since.
    reload_queued: bool,
    /// The read that is under way began after the last loss of data was noticed.
    reads_after_loss: bool,
}

impl<S, T> Default for Work<S, T> {
    fn default() -> Self {
        Self {
            jobs: VecDeque::new(),
            batch: 0,
            awaited: Awaited::Job,
            attempt: 0,
            unknown: None,
            reload_queued: false,
            reads_after_loss: false,
        }
    }
}

impl<S, T> Work<S, T> {
    pub(super) fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.awaited == Awaited::Job
    }

    /// Notes that the store has lost data: a document that is being read may be from before.
    pub(super) fn data_lost(&mut self) {
        self.reads_after_loss = false;
    }

    /// Whether a frame of this client waits for its decision.
    pub(super) fn is_deciding(&self, connection: ConnectionId) -> bool {
        self.jobs.iter().any(|job| match &job.event {
            Event::Frame { connection: of, .. } | Event::Handshake { connection: of, .. } => *of == connection,
            _ => false,
        })
    }

    /// The jobs that are being decided.
    pub(super) fn batch(&self) -> impl Iterator<Item = &Job<S, T>> {
        self.jobs.iter().take(self.batch)
    }

    /// Removes these jobs from the batch.
    fn remove(&mut self, removed: impl Fn(&Job<S, T>) -> bool) -> VecDeque<Job<S, T>> {
        if !self.batch().any(&removed) {
            return VecDeque::new();
        }
        let later = self.jobs.split_off(self.batch);
        let (removed, kept) = std::mem::take(&mut self.jobs).into_iter().partition(removed);
        self.jobs = kept;
        self.batch = self.jobs.len();
        self.jobs.extend(later);
        removed
    }

    fn take_batch(&mut self) -> Vec<Job<S, T>> {
        self.take(self.batch)
    }

    /// Takes the first jobs of the batch. An idle room keeps no space for jobs.
    fn take(&mut self, count: usize) -> Vec<Job<S, T>> {
        self.batch -= count;
        if count == self.jobs.len() {
            return std::mem::take(&mut self.jobs).into();
        }
        self.jobs.drain(..count).collect()
    }
}

impl<S, T> Room<S, T> {
    /// The caller that waits for the first job, if one does.
    #[must_use]
    pub fn first_ticket(&self) -> Option<&T> {
        self.work.jobs.front().and_then(|job| job.ticket.as_ref())
    }

    /// How many jobs are being decided.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.work.batch
    }
}

impl<S, T, O: Outputs<S, T>> Step<'_, '_, S, T, O> {
    pub(super) fn submit(&mut self, event: Event, cause: Cause<S>, ticket: Option<T>) {
        self.room.work.jobs.push_back(Job { event, cause, ticket });
    }

    /// Makes sure that the document is read once more, from now on.
    pub(super) fn reload(&mut self) {
        if !std::mem::replace(&mut self.room.work.reload_queued, true) {
            self.submit(Event::Due, Cause::None, None);
        }
    }

    /// Starts to decide the jobs that wait, unless that is under way.
    pub(super) fn start_work(&mut self) {
        let work = &mut self.room.work;
        if work.awaited == Awaited::Job && !work.jobs.is_empty() {
            (work.batch, work.attempt, work.unknown) = (work.jobs.len(), 0, None);
            self.load();
        }
    }

    fn ask(&mut self, request: Request) {
        self.out.put(Output::Ask(Box::new(request)));
    }

    pub(super) fn load(&mut self) {
        let work = &mut self.room.work;
        // Announcements from now on may not be in the document that is read, so that it has to be read again.
        (work.reload_queued, work.reads_after_loss) = (false, true);
        // The decision counts under the lease that was held before the document was read.
        work.awaited = Awaited::Document(self.env.trust.term(self.env.now));
        self.ask(Request::Load);
    }

    pub(super) fn loaded(&mut self, Loaded { found, .. }: Loaded) {
        let Awaited::Document(term) = std::mem::take(&mut self.room.work.awaited) else { return };
        let Some(mut stored) = found else { return self.missing() };
        self.room.known.unread_since_loss &= !self.room.work.reads_after_loss;
        if let Some(unknown) = self.room.work.unknown.take() {
            if was_committed(&unknown.1, &stored) {
                let (basis, decision) = *unknown;
                return self.finish(Basis { term, ..basis }, decision, stored.version, true);
            }
            // It may be committed after this read.
            self.room.known.unannounced = true;
        }
        let recovering = self.is_recovering(&stored.session);
        if recovering {
            // The requests and the offer may belong to an epoch that the store has forgotten.
            (stored.session.core.requests, stored.session.core.offer) = (Vec::new(), None);
        }
        if term.is_none() || recovering {
            self.refuse_jobs(Job::claims);
        } else {
            self.refuse_jobs(|job| job.is_from_before(&stored.session));
        }
        self.drop_late_frames(&stored.session);
        let nodes: Vec<NodeId> = stored.session.rosters.keys().filter(|node| *node != self.env.here).cloned().collect();
        self.room.work.awaited = Awaited::Heartbeats(Box::new(Basis { stored, term, lapsed: BTreeSet::new() }));
        self.ask(Request::LookAgain(nodes));
    }

    pub(super) fn looked_again(&mut self, lapsed: BTreeSet<NodeId>) {
        let Awaited::Heartbeats(basis) = std::mem::take(&mut self.room.work.awaited) else { return };
        let basis = Basis { lapsed, ..*basis };
        let decision = self.decide(&basis);
        let Some(write) = decision.write.clone() else {
            let version = basis.stored.version;
            return self.finish(basis, decision, version, false);
        };
        self.suspend_controller(&decision.session, &write);
        self.room.work.awaited = Awaited::Write(Box::new((basis, decision)));
        self.ask(Request::Commit(write));
    }

    pub(super) fn committed(&mut self, committed: Committed) {
        let Awaited::Write(written) = std::mem::take(&mut self.room.work.awaited) else { return };
        match committed {
            Committed::Done { version, .. } => {
                let (basis, decision) = *written;
                self.finish(basis, decision, version, false);
            }
            Committed::Conflict => self.retry(),
            Committed::Missing => self.load(),
        }
    }

    fn retry(&mut self) {
        let work = &mut self.room.work;
        let attempt = work.attempt;
        work.attempt += 1;
        if work.attempt == MAX_ATTEMPTS {
            return self.give_up();
        }
        work.awaited = Awaited::Retry;
        self.ask(Request::Pause(attempt));
    }

    /// The store did not answer. A first write whose outcome is unknown is looked for once.
    pub(super) fn failed(&mut self) {
        let first = self.room.work.attempt == 0;
        match std::mem::take(&mut self.room.work.awaited) {
            Awaited::Write(written) => {
                self.room.work.unknown = Some(written);
                if first { self.retry() } else { self.give_up() }
            }
            _ => self.give_up(),
        }
    }

    /// Nothing is decided until the store answers.
    fn give_up(&mut self) {
        self.room.work.awaited = Awaited::Job;
        // A write that is committed after all has to be announced.
        self.room.known.unannounced |= self.room.work.unknown.take().is_some();
        let first = !std::mem::replace(&mut self.room.known.stale, true);
        for job in self.room.work.take_batch() {
            if let Event::Leave { connection, .. } = &job.event {
                self.room.members.retain(|member| member.connection != *connection);
            }
            self.refuse(job);
        }
        self.out.put(Output::Undecided { first });
    }

    /// Drops the frames of the batch whose sender was told, since they arrived, that it is not the controller: it sent
    /// them before it could know.
    fn drop_late_frames(&mut self, session: &Session) {
        let now = self.env.now.local;
        let members = &self.room.members;
        let late = |job: &Job<S, T>| {
            job.frame().is_some_and(|(connection, frame)| {
                let member = members.iter().find(|member| member.connection == connection);
                member.is_some_and(|member| member.drops(frame.kind, now)) && !session.controls(connection)
            })
        };
        for job in self.room.work.remove(late) {
            let Some((connection, frame)) = job.frame() else { continue };
            self.drop_frame(connection, frame);
            self.decided(connection);
        }
    }

    /// Refuses these jobs of the batch. All claims are refused while this node has no lease or the store may not know the
    /// controller: also that of a controller that comes back, because it needs a new grant.
    fn refuse_jobs(&mut self, refused: impl Fn(&Job<S, T>) -> bool) {
        self.room.work.remove(refused).into_iter().for_each(|job| self.refuse(job));
    }

    /// Answers a job that cannot be decided now.
    fn refuse(&mut self, job: Job<S, T>) {
        if let Some(ticket) = job.ticket {
            self.out.put(Output::Reply(ticket, Reply::Unavailable));
        }
        match (job.event, job.cause) {
            (Event::Frame { connection, intent, .. }, Cause::Frame(frame)) => {
                // Its sender may believe that it was decided. As soon as the document is readable again, the sender is
                // told the true roles and the controller is asked for its state.
                let controls = self.room.controls(connection);
                self.room.known.stale = true;
                self.room.stream.resync();
                if let Some(member) = self.room.member_mut(connection) {
                    member.note_sent(&frame);
                    if let Some(belief) = Belief::of(&intent, controls) {
                        member.view.was_not_decided(belief);
                    }
                }
                self.reject(connection, ErrorCode::StoreUnavailable, frame.kind.wire());
                self.decided(connection);
            }
            (Event::Handshake { connection, .. }, _) => {
                // A token that the document does not have would be worthless.
                if let Some(member) = self.room.member(connection) {
                    self.out.put(Output::Close(&member.socket, CloseReason::StoreUnavailable));
                }
                self.decided(connection);
            }
            _ => {}
        }
    }

    pub(super) fn decided(&mut self, connection: ConnectionId) {
        if let Some(member) = self.room.member(connection) {
            self.out.put(Output::Decided(&member.socket));
        }
    }

    /// Handles a missing document. If the store has lost its data, the sockets of this node restore the session;
    /// otherwise the session is over.
    fn missing(&mut self) {
        let view = self.room.known.view.as_ref();
        if view.is_none_or(|view| view.session.core.status != Status::Active) {
            return self.end_session();
        }
        if self.room.known.unread_since_loss || self.env.trust.assess(None, self.env.now).is_recovering() {
            return self.restore();
        }
        // The heartbeat may not have noticed the loss yet: a server that was flushed by hand keeps its name.
        self.room.work.awaited = Awaited::Lineage;
        self.ask(Request::ReadLineage);
    }

    pub(super) fn lineage_read(&mut self) {
        self.room.work.awaited = Awaited::Job;
        if self.env.trust.assess(None, self.env.now).is_recovering() {
            self.restore();
        } else {
            self.end_session();
        }
    }

    /// Writes the session again. Each node restores its own clients only. Whether its controller keeps control is
    /// decided when the document is read again.
    fn restore(&mut self) {
        self.room.known.unread_since_loss = true;
        let Some(view) = &self.room.known.view else { return };
        let until = self.env.now.store + self.env.trust.patience;
        let session = view.session.restored(self.env.here, self.env.now.store, until);
        let keep = super::keep(&session, self.env.now.store);
        self.room.work.awaited = Awaited::Retry;
        self.ask(Request::Create(session, keep));
    }

    /// There is no such session, or none any more.
    fn end_session(&mut self) {
        (self.room.known.stale, self.room.known.view, self.room.known.unread_since_loss) = (false, None, false);
        self.room.control.local = None;
        for member in std::mem::take(&mut self.room.members) {
            self.out.put(Output::Close(&member.socket, CloseReason::SessionExpired));
        }
        let (trust, now) = (self.env.trust, self.env.now);
        for job in self.room.work.take_batch() {
            // A client with a resume token was in the session before the store lost its data.
            let proven = matches!(&job.event, Event::Join(join) if join.resume.is_some());
            let forgotten = trust.assess(proven.then_some(0), now).is_recovering();
            if let Some(ticket) = job.ticket {
                let reply = if forgotten { Reply::Unavailable } else { Reply::Missing };
                self.out.put(Output::Reply(ticket, reply));
            }
        }
    }

    /// The jobs that a decision covers.
    pub(super) fn take_jobs(&mut self, taken: usize) -> Vec<Job<S, T>> {
        self.room.work.take(taken)
    }

    /// Goes on with the rest of the batch.
    pub(super) fn next_decision(&mut self) {
        let work = &mut self.room.work;
        (work.attempt, work.unknown) = (0, None);
        if work.batch > 0 {
            self.load();
        }
    }
}

impl<S, T> Job<S, T> {
    /// Whether it asks for something new.
    fn claims(&self) -> bool {
        match &self.event {
            Event::Frame { intent, .. } => *intent != crate::control::Intent::Speak,
            Event::Join(join) => join.resume.is_some(),
            Event::Leave { .. } | Event::Rejoin { .. } | Event::RestoreCore(_) | Event::Handshake { .. } => false,
            Event::Delete | Event::Due => false,
        }
    }

    /// Whether it is a frame that was sent before its sender's place was lost, by a sender that names no epochs: what it
    /// believed then is no claim now.
    fn is_from_before(&self, session: &Session) -> bool {
        let Event::Frame { connection, stamp: Stamp::Seen(_), .. } = &self.event else { return false };
        let mut places = session.rosters.values().flat_map(|roster| &roster.clients);
        self.claims() && places.all(|client| client.connection != *connection)
    }
}

/// Whether a write whose answer was lost is in the store.
fn was_committed(decision: &Decision, stored: &Stored) -> bool {
    decision.write.as_ref().is_some_and(|write| stored.base.write == write.id)
}

impl<S, T> Hash for Work<S, T> {
    /// Without the number of the attempt, except whether it is the first.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { jobs, batch, awaited, attempt, unknown, reload_queued, reads_after_loss } = self;
        (jobs, batch, awaited, *attempt == 0, unknown, reload_queued, reads_after_loss).hash(state);
    }
}
