//! One socket in a session, with the relay's data about it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use super::outbound::{Item, Outbound, Pushed, QueueLimits};
use super::room::{RecentStates, Room};
use crate::ids::{ClientId, ConnectionId, Epoch, Seq};
use crate::protocol::{Frame, FrameType, outgoing};
use crate::reconcile::ClientView;
use crate::session::{Client, Place};

/// How long a client has to answer a `request_sync`.
const ANSWER_WINDOW: Duration = Duration::from_secs(5);

/// How long the relay waits for a client's acknowledgement that it is not the controller.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest number of acknowledgements that a client may owe.
const MAX_PENDING_ACKS: usize = 32;

/// The largest number of states that may cross an answer on the way.
const MAX_KNOWN: usize = 32;

/// The largest number of clients that may wait for one client's answer to `request_sync`.
const MAX_ASKERS: usize = 64;

/// One socket in a session.
#[derive(Debug)]
pub struct Member {
    /// The socket.
    pub connection: ConnectionId,
    /// Its session.
    pub room: Arc<Room>,
    /// The queue of frames for the socket.
    pub outbound: Outbound,
    state: Mutex<MemberState>,
    refused: AtomicU64,
}

/// The state of a member that changes.
#[derive(Debug, Default)]
pub struct MemberState {
    /// The roles and presence that the client was last told.
    pub client_view: ClientView,
    /// The client as the document last showed it, used to restore it; `None` before it has joined.
    pub client: Option<Client>,
    /// The client has sent a frame with its own id, and the document has recorded that.
    pub spoke: bool,
    /// A newer socket of the same client has its place: this socket is ignored and gets nothing.
    pub superseded: bool,
    /// The hash of the last state that passed from or to the client.
    pub last_state: Option<u64>,
    /// The hash of the last state that the client sent and that did not pass to all. The client repeats it when it is
    /// asked, even if it was refused.
    pub sent: Option<u64>,
    /// A new state has passed from or to the client since it last asked for the state.
    pub updated: bool,
    /// The clients that wait for its answer to a `request_sync`.
    pub open_sync: Option<OpenSync>,
    /// The client may send one initial state as a follower.
    pub initial_push: bool,
    /// The number of the client's last frame.
    pub seq: Seq,
    /// When each notice was sent that the client has not acknowledged yet, oldest first.
    pub pending_acks: VecDeque<Instant>,
    /// When the client was last sent such a notice on an older socket, where it may have arrived.
    pub inherited_ack: Option<Instant>,
    /// The client has acknowledged a loss, so it knew that it was not the controller, whatever its older socket was
    /// sent.
    pub confirmed: bool,
    /// A frame that is forwarded when the client gets control.
    pub held: Option<Frame>,
    /// The frame by which another client took control from this one, until this one is told.
    pub accepted: Option<(ConnectionId, Bytes)>,
}

/// A `request_sync` that a client has not answered yet.
#[derive(Debug)]
pub struct OpenSync {
    /// The deadline for the answer.
    pub until: Instant,
    /// The clients that get the answer.
    pub askers: Vec<Place>,
    /// The hashes of the states that can be the answer: the last state that had passed when the client was asked, and
    /// the states that have passed since, because the answer may cross them on the way. Empty: any state can be the
    /// answer.
    known: Vec<u64>,
    /// No state had passed on this socket when the client was asked, so the answer may be a state from before it came
    /// back.
    newcomer: bool,
    /// The client was asked as the controller, and has lost control since. A frame on its way may be a state that was
    /// refused; a client with the handshake sends it without an epoch, as it does all states except answers.
    outlived: bool,
}

/// A frame for several members, in the two forms that clients with and without the handshake get.
#[derive(Debug)]
pub struct Parcel {
    /// The text as its sender wrote it.
    text: Bytes,
    /// The text with `epoch` and `seq`, made when first needed.
    numbered: Option<Bytes>,
    epoch: Epoch,
    seq: Seq,
    /// The type of the frame.
    pub kind: FrameType,
    /// The source of the state, if a newer state may replace it.
    pub state_of: Option<ConnectionId>,
    /// The hash of the state in the frame.
    pub state_hash: Option<u64>,
}

impl Parcel {
    /// Creates a parcel for a frame that was let through in `epoch` as number `seq` of its sender.
    #[must_use]
    pub fn new(text: Bytes, kind: FrameType, epoch: Epoch, seq: Seq) -> Self {
        Self { text, numbered: None, epoch, seq, kind, state_of: None, state_hash: None }
    }

    fn for_member(&mut self, modern: bool) -> Bytes {
        if !modern {
            return self.text.clone();
        }
        let (text, epoch, seq) = (&self.text, self.epoch, self.seq);
        let number = || outgoing::with_members(text, &[("epoch", epoch.0.into()), ("seq", seq.0.into())]);
        self.numbered.get_or_insert_with(number).clone()
    }
}

impl Member {
    /// Creates a member for a socket that has just opened.
    #[must_use]
    pub fn new(connection: ConnectionId, room: Arc<Room>) -> Self {
        Self { connection, room, outbound: Outbound::default(), state: Mutex::default(), refused: AtomicU64::new(0) }
    }

    /// Locks the member's state.
    pub fn lock(&self) -> MutexGuard<'_, MemberState> {
        self.state.lock()
    }

    /// Counts a refused frame of the member.
    pub fn note_refusal(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How many of the member's frames were refused so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Queues a forwarded frame. Returns how many older states it replaced.
    pub fn deliver(&self, parcel: &mut Parcel, limits: &QueueLimits) -> usize {
        let mut state = self.state.lock();
        // A client that waits for control with its own state no longer needs the states of the client that it takes
        // control from.
        let overtaken = parcel.state_of.is_some() && state.held.is_some();
        if state.superseded || overtaken {
            return 0;
        }
        if let Some(hash) = parcel.state_hash {
            state.note_state(hash);
            state.updated |= parcel.state_of.is_some();
        }
        let text = parcel.for_member(state.client_view.modern);
        drop(state);
        let state_of = parcel.state_of.map(|source| (source, parcel.epoch));
        match self.outbound.push(Item { text, kind: parcel.kind, state_of }, limits) {
            Pushed::Queued(superseded) => superseded,
            Pushed::Refused => 0,
        }
    }

    /// Queues a frame of the relay's own.
    pub fn send(&self, text: Bytes, kind: FrameType, limits: &QueueLimits) {
        self.outbound.push(Item { text, kind, state_of: None }, limits);
    }
}

impl MemberState {
    /// Whether the client has not yet acknowledged that it is not the controller, so that its role frames and states
    /// may have been sent before it knew. An acknowledgement that was lost with another socket of the client is waited
    /// for only until its time-out.
    #[must_use]
    pub fn awaits_ack(&self, now: Instant) -> bool {
        self.last_pending_ack().is_some_and(|sent| now.saturating_duration_since(sent) < ACK_TIMEOUT)
    }

    /// When the client was last sent a notice that it has to acknowledge.
    #[must_use]
    pub fn last_pending_ack(&self) -> Option<Instant> {
        self.pending_acks.back().copied().max(self.inherited_ack)
    }

    /// Notes the acknowledgements that the client owes for the notices just sent.
    pub fn expect_acks(&mut self, now: Instant) {
        self.pending_acks.retain(|sent| now.saturating_duration_since(*sent) < ACK_TIMEOUT);
        for _ in 0..std::mem::take(&mut self.client_view.acks) {
            if self.pending_acks.len() == MAX_PENDING_ACKS {
                self.pending_acks.pop_front();
            }
            self.pending_acks.push_back(now);
        }
    }

    /// Notes an acknowledgement. The missing ones belong to the oldest notices. Notices on an older socket then need no
    /// acknowledgement, because the socket may have died before they arrived.
    pub fn acknowledge_loss(&mut self) {
        self.pending_acks.pop_back();
        self.confirmed = true;
        if self.pending_acks.is_empty() {
            self.inherited_ack = None;
        }
    }

    /// Notes that this many notices were withdrawn before the client got them.
    pub fn withdraw_acks(&mut self, withdrawn: usize) {
        self.pending_acks.truncate(self.pending_acks.len().saturating_sub(withdrawn));
    }

    /// Takes over the notices that the client was sent on an older socket and did not acknowledge there.
    pub fn inherit_ack(&mut self, acks: Option<Instant>) {
        if !self.confirmed {
            self.inherited_ack = acks;
        }
    }

    /// Returns the number of the client's next frame.
    pub fn next_seq(&mut self) -> Seq {
        self.seq.0 += 1;
        self.seq
    }

    /// The id by which other clients know it, once it has joined.
    #[must_use]
    pub fn name(&self) -> Option<&ClientId> {
        self.client.as_ref().map(Client::name)
    }

    /// Notes that the client is asked for its state, by `asker` or by the relay itself.
    pub fn ask(&mut self, asker: Option<Place>, now: Instant) {
        let last = self.last_state;
        let open = self.open_sync.take().filter(|open| open.until > now);
        let mut open = open.unwrap_or_else(|| OpenSync {
            until: now,
            askers: Vec::new(),
            known: last.into_iter().collect(),
            newcomer: last.is_none(),
            outlived: false,
        });
        open.until = now + ANSWER_WINDOW;
        open.askers.retain(|known| Some(known) != asker.as_ref());
        open.askers.extend(asker.filter(|_| open.askers.len() < MAX_ASKERS));
        self.open_sync = Some(open);
    }

    /// Notes that a state with this hash passed from or to the client.
    pub fn note_state(&mut self, hash: u64) {
        self.last_state = Some(hash);
        if let Some(open) = &mut self.open_sync
            && open.known.len() < MAX_KNOWN
        {
            open.known.push(hash);
        }
    }

    /// Notes that the client answered with this state. Its next state is not an answer, even if no state has ever
    /// passed.
    pub fn note_answer(&mut self, hash: u64) {
        self.sent = Some(hash);
        if let Some(open) = self.open_sync.as_mut().filter(|open| open.known.len() < MAX_KNOWN) {
            open.known.push(hash);
        }
    }

    /// Whether the client shows a state of its own that has not passed.
    #[must_use]
    pub fn is_ahead(&self) -> bool {
        self.sent.is_some() && self.sent != self.last_state
    }

    /// Notes a frame that did not pass at once: if it is a state, its sender takes it for the present one.
    pub fn note_sent(&mut self, frame: &Frame) {
        if frame.kind == FrameType::StateUpdate {
            self.sent = Some(frame.data_hash());
        }
    }

    /// Notes that the client sent this state as the controller, so that no other answer of it is expected.
    pub fn drove(&mut self, hash: u64) {
        self.sent = None;
        self.note_state(hash);
        self.answered();
    }

    /// Notes that the client has lost control. Its answer to a question to the controller goes to nobody now. The
    /// answer may be under way, and still counts as an answer and not as a new state.
    pub fn on_control_lost(&mut self) {
        self.open_sync.take_if(|open| open.known.is_empty());
        self.open_sync.iter_mut().for_each(|open| open.outlived = true);
        self.answered();
    }

    /// Returns the clients that wait for the answer that has just arrived. A second answer, to a second question, also
    /// counts as an answer and not as a claim; it goes to nobody.
    pub fn answered(&mut self) -> Vec<Place> {
        self.open_sync.as_mut().map(|open| std::mem::take(&mut open.askers)).unwrap_or_default()
    }

    /// Whether a state with this hash can answer an open `request_sync`. `numbered`: it carries an epoch; `passed`: the
    /// states that passed in its session recently.
    #[must_use]
    pub fn answers(&self, hash: u64, numbered: bool, passed: &RecentStates, now: Instant) -> bool {
        let open = self.open_sync.as_ref().filter(|open| open.until > now);
        open.is_some_and(|open| {
            let known = open.known.contains(&hash) || [self.last_state, self.sent].contains(&Some(hash));
            let any = open.known.is_empty() && self.last_state.is_none();
            let from_before = open.newcomer && passed.contains(hash);
            known || any || from_before || (open.outlived && self.client_view.modern && !numbered)
        })
    }
}
