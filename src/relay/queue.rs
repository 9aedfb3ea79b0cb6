//! One queue per session: everything that needs a decision is decided here, one job after the other.
//!
//! A worker runs while there are jobs. It loads the document, applies the queued events, commits, and tells all clients
//! concerned. Inside a node there are no conflicts. Conflicts between nodes fail the compare-and-swap of the core, and
//! the worker decides again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::sync::oneshot;
use tracing::{Instrument, Span};

use super::decide::Decision;
use super::{Relay, SPANS};
use crate::control::{Context, Event, Intent};
use crate::hub::{LocalController, Member, Room};
use crate::ids::{Millis, NodeId, SessionId};
use crate::protocol::{CloseReason, Frame};
use crate::session::{Session, Status};
use crate::store::{Committed, StoreError, Stored, Write};

/// How often a worker decides again before it gives up. Each conflict means that another node's write was committed.
const MAX_ATTEMPTS: u32 = 64;

/// A job to decide.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) event: Event,
    /// The frame and its sender.
    pub(super) cause: Option<(Arc<Member>, Frame)>,
    pub(super) reply: oneshot::Sender<Reply>,
    /// The span of the caller, as the parent of the decision's spans.
    pub(super) span: Span,
}

/// The result of a job.
#[derive(Debug)]
pub(super) enum Reply {
    /// The job is decided, and all clients are told.
    Done,
    /// The socket has joined.
    Joined(Arc<Member>),
    /// The socket is refused.
    Closed(CloseReason),
    /// The session does not exist.
    Missing,
    /// The store cannot be reached.
    Unavailable,
}

/// How a decision stands in the store.
pub(super) struct Standing {
    pub(super) version: u64,
    /// The lease that the node held before it read the document.
    pub(super) term: Option<u64>,
    /// Other nodes wrote in between, so the document has to be read again.
    pub(super) partial: bool,
}

impl Relay {
    /// Submits an event. Returns when it is decided, or when the store cannot be reached.
    pub(super) async fn submit(&self, id: SessionId, event: Event, cause: Option<(Arc<Member>, Frame)>) -> Reply {
        let (reply, answer) = oneshot::channel();
        self.enqueue(id, Job { event, cause, reply, span: Span::current() });
        answer.await.unwrap_or(Reply::Unavailable)
    }

    /// Applies the events that are due in a session, and tells this node's clients the changes. Does not wait for that.
    pub(super) fn refresh(&self, room: &Room) {
        if !std::mem::replace(&mut room.lock().reload_queued, true) {
            let (reply, _) = oneshot::channel();
            self.enqueue(room.id, Job { event: Event::Tick, cause: None, reply, span: Span::none() });
        }
    }

    fn enqueue(&self, id: SessionId, job: Job) {
        let mut queues = self.inner.queues.lock();
        if let Some(queue) = queues.get_mut(&id) {
            return queue.push_back(job);
        }
        queues.insert(id, VecDeque::from([job]));
        drop(queues);
        let relay = self.clone();
        self.inner.tasks.spawn(async move { relay.work(id).await });
    }

    async fn work(&self, id: SessionId) {
        let mut jobs = VecDeque::new();
        loop {
            if jobs.is_empty() {
                let mut queues = self.inner.queues.lock();
                match queues.get_mut(&id) {
                    Some(queue) if !queue.is_empty() => jobs.append(queue),
                    // The room can only be closed while nothing can be queued for it.
                    _ => {
                        self.close_room_if_idle(id);
                        queues.remove(&id);
                        return;
                    }
                }
            }
            let asked_by = jobs.front().and_then(|job| job.span.id());
            let span =
                tracing::debug_span!(target: SPANS, parent: asked_by, "decide", session = id.tag(), jobs = jobs.len());
            if let Err(error) = self.decide_and_commit(id, &mut jobs).instrument(span).await {
                // The warning appears once for each session, because all sessions retry while the store is unavailable.
                if self.fail(id, &mut jobs) {
                    tracing::warn!(session = id.tag(), %error, "nothing could be decided; the relay retries");
                } else {
                    tracing::debug!(session = id.tag(), %error, "nothing could be decided yet");
                }
            }
        }
    }

    fn close_room_if_idle(&self, id: SessionId) {
        if let Some(room) = self.inner.hub.find(id) {
            self.inner.hub.close_if(&room, |room| {
                let state = room.lock();
                // A client that is cut off loses its place when its grace period is over.
                let roster = state.view.as_ref().and_then(|view| view.session.rosters.get(self.node()));
                state.members.is_empty() && !state.stale && roster.is_none_or(|roster| roster.clients.is_empty())
            });
            self.inner.metrics.sessions.set(i64::try_from(self.inner.hub.len()).unwrap_or(i64::MAX));
        }
    }

    /// Handles a store that did not answer: this session has no controller until it does. Returns `true` if the store
    /// answered before.
    fn fail(&self, id: SessionId, jobs: &mut VecDeque<Job>) -> bool {
        let room = self.inner.hub.find(id);
        let first = room.as_ref().is_none_or(|room| !std::mem::replace(&mut room.lock().stale, true));
        for job in jobs.drain(..) {
            if let (Event::Leave { connection, .. }, Some(room)) = (&job.event, &room) {
                room.lock().remove(*connection);
            }
            // The receiver may be gone.
            let _ = job.reply.send(Reply::Unavailable);
        }
        first
    }

    /// Decides as many of the jobs as fit into one write.
    async fn decide_and_commit(&self, id: SessionId, jobs: &mut VecDeque<Job>) -> Result<(), StoreError> {
        let mut unknown: Option<(Session, Decision)> = None;
        for attempt in 0..MAX_ATTEMPTS {
            // The decision counts under the lease that was held before the document was read.
            let term = self.inner.presence.term();
            self.begin_load(id);
            let loaded = self.inner.store.load(id).await?;
            self.inner.clock.set(loaded.now);
            self.inner.presence.heard_from(&loaded.server);
            let Some(mut stored) = loaded.found else {
                return self.missing(id, jobs, loaded.now).await;
            };
            if let Some((before, decision)) = unknown.take()
                && was_committed(&decision, &stored, self.node())
            {
                self.finish(id, jobs, &before, decision, Standing { version: stored.version, term, partial: true });
                return Ok(());
            }
            let doubtful = self.is_doubtful(&stored.session, loaded.now);
            if doubtful {
                // The requests and the offer may belong to an epoch that the store has forgotten.
                (stored.session.core.requests, stored.session.core.offer) = (Vec::new(), None);
            }
            if term.is_none() || doubtful {
                refuse_claims(jobs);
            }
            let nodes: Vec<NodeId> = stored.session.rosters.keys().cloned().collect();
            let lapsed = self.inner.presence.still_lapsed(&nodes).await?;
            let (here, now, rules) = (self.node(), loaded.now, &self.inner.settings.rules);
            let context = Context { here, now, lapsed: &lapsed, flushed: self.flushed(id), rules };
            let mut decision = self.decide(id, &stored, jobs, context, term);
            let Some(write) = decision.write.take() else {
                let standing = Standing { version: stored.version, term, partial: false };
                self.finish(id, jobs, &stored.session, decision, standing);
                return Ok(());
            };
            if decision.session.rosters.contains_key(self.node()) {
                // Other nodes may see this node's write before this node gets the answer, and may already send frames.
                // If the answer never arrives, the room must be there to read the document again.
                self.inner.hub.open(id);
            }
            self.suspend_controller(id, &decision.session, &write);
            decision.write = Some(write.clone());
            let span = tracing::debug_span!(target: SPANS, "commit", attempt);
            match self.inner.store.commit(id, write).instrument(span).await {
                Ok(Committed::Done { version, now }) => {
                    self.inner.clock.set(now);
                    let partial = version != stored.version + 1;
                    self.finish(id, jobs, &stored.session, decision, Standing { version, term, partial });
                    return Ok(());
                }
                Ok(Committed::Conflict) => {}
                Ok(Committed::Missing) => continue,
                Err(StoreError::Unavailable(_)) if attempt == 0 => unknown = Some((stored.session, decision)),
                Err(error) => return Err(error),
            }
            self.back_off(attempt).await;
        }
        Err(StoreError::Unavailable("too many other writes to the same session".to_owned()))
    }

    /// Notes that announcements from now on may not be in the document that is read, so that it has to be read again.
    fn begin_load(&self, id: SessionId) {
        if let Some(room) = self.inner.hub.find(id) {
            room.lock().reload_queued = false;
        }
    }

    /// Whether the session may have a controller that the store has forgotten. Then no other client may get control.
    fn is_doubtful(&self, session: &Session, now: Millis) -> bool {
        let presence = &self.inner.presence;
        presence.may_have_lost_data() || presence.predates_lineage(session.info.created_at, now)
    }

    async fn back_off(&self, attempt: u32) {
        let most = 1_u64 << attempt.min(6);
        let wait = rand::rng().random_range(0..=most);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }

    /// Before control can leave a client of this node, its states stop passing until a document is read after that
    /// write.
    fn suspend_controller(&self, id: SessionId, after: &Session, write: &Write) {
        let Some(room) = self.inner.hub.find(id) else { return };
        let mut state = room.lock();
        state.unresolved_write = write.core.as_ref().map(|(_, base)| base.write).or(state.unresolved_write);
        let Some(controller) = state.controller else { return };
        let stays = after.controls(controller.connection) && after.core.epoch == controller.epoch;
        // A client that is flushed goes on until its frames are read. It then loses control by another write.
        let moves = after.core.transfer.is_some() && !self.must_be_flushed(&state, after);
        let leaves = !stays || moves || after.core.status != Status::Active;
        state.controller = Some(LocalController { suspended: controller.suspended || leaves, ..controller });
    }

    /// Handles a missing document. If the store has lost its data, the sockets of this node restore the session;
    /// otherwise the session is over.
    async fn missing(&self, id: SessionId, jobs: &mut VecDeque<Job>, now: Millis) -> Result<(), StoreError> {
        if let Some(room) = self.inner.hub.find(id) {
            let restored = self.restore(&room).await?;
            if restored {
                return Ok(());
            }
            let mut state = room.lock();
            state.stale = false;
            for member in std::mem::take(&mut state.members) {
                member.outbound.close(CloseReason::SessionExpired);
            }
        }
        let doubtful = self.inner.presence.may_have_lost_data();
        for job in jobs.drain(..) {
            // A client with a resume token was in the session before the store lost its data.
            let proven = matches!(&job.event, Event::Join(join) if join.resume.is_some());
            let forgotten = doubtful || proven && self.inner.presence.predates_lineage(0, now);
            // The receiver may be gone.
            let _ = job.reply.send(if forgotten { Reply::Unavailable } else { Reply::Missing });
        }
        Ok(())
    }
}

/// Refuses new grants while this node has no lease or the store may not know the controller. A controller that comes
/// back also needs a new grant.
fn refuse_claims(jobs: &mut VecDeque<Job>) {
    for job in std::mem::take(jobs) {
        let refused = match &job.event {
            Event::Frame { intent, .. } => *intent != Intent::Speak,
            Event::Join(join) => join.resume.is_some(),
            Event::Leave { .. } | Event::Rejoin { .. } | Event::RestoreCore(_) | Event::Handshake { .. } => false,
            Event::Delete | Event::Tick => false,
        };
        if refused {
            // The receiver may be gone.
            let _ = job.reply.send(Reply::Unavailable);
        } else {
            jobs.push_back(job);
        }
    }
}

/// Whether a write whose answer was lost is in the store.
fn was_committed(decision: &Decision, stored: &Stored, here: &NodeId) -> bool {
    let Some(write) = &decision.write else { return false };
    let roster = |session: &Session| session.rosters.get(here).cloned();
    match &write.core {
        Some(_) => stored.base.write == write.id,
        None => roster(&stored.session) == roster(&decision.session),
    }
}
