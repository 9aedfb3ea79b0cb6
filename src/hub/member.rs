//! One socket in a session, as the relay knows it.

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

/// How long a client has for its answer to a `request_sync`.
const ANSWER_WINDOW: Duration = Duration::from_secs(5);

/// How long a client's confirmation that it does not drive is waited for.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// How many confirmations a client may owe.
const MAX_PENDING_ACKS: usize = 32;

/// How many states may cross an answer on the way.
const MAX_KNOWN: usize = 32;

/// How many clients may wait for one client's answer to `request_sync`.
const MAX_ASKERS: usize = 64;

/// One socket in a session.
#[derive(Debug)]
pub struct Member {
    /// The socket.
    pub connection: ConnectionId,
    /// Its session.
    pub room: Arc<Room>,
    /// The frames on their way to it.
    pub outbound: Outbound,
    state: Mutex<MemberState>,
    refused: AtomicU64,
}

/// What changes about a seat.
#[derive(Debug, Default)]
pub struct MemberState {
    /// What the client was last told.
    pub client_view: ClientView,
    /// Its place as last seen in the document, to restore it by; `None` before it has joined.
    pub client: Option<Client>,
    /// It has sent a frame that the document knows of, with its own id in it.
    pub spoke: bool,
    /// A newer socket of the same client has its place: it is ignored and gets nothing.
    pub superseded: bool,
    /// The hash of the last state that passed to or from it.
    pub last_state: Option<u64>,
    /// The hash of the last state that it sent and that did not pass to all: it repeats it when it is asked, even if it was
    /// refused.
    pub sent: Option<u64>,
    /// Since it last asked for the state a new one has passed to or from it.
    pub updated: bool,
    /// Who waits for its answer to a `request_sync`.
    pub open_sync: Option<OpenSync>,
    /// It may send its one initial state as a follower.
    pub initial_push: bool,
    /// The number of its last frame.
    pub seq: Seq,
    /// When it was sent each thing that it has yet to confirm, oldest first.
    pub pending_acks: VecDeque<Instant>,
    /// When its client was last sent such a thing on an older socket, and may have it.
    pub inherited_ack: Option<Instant>,
    /// It has confirmed something: its client knows that it did not drive then, whatever its older socket was sent.
    pub confirmed: bool,
    /// A frame that follows when control comes.
    pub held: Option<Frame>,
    /// The frame by which another took control from it, until it is told.
    pub accepted: Option<(ConnectionId, Bytes)>,
}

/// A `request_sync` that a client has not answered yet.
#[derive(Debug)]
pub struct OpenSync {
    /// When it is too late.
    pub until: Instant,
    /// Who gets the answer.
    pub askers: Vec<Place>,
    /// The hashes of the states that may be its answer: the last one that had passed when it was asked, and those that
    /// have passed since, for its answer may cross them on the way. Empty: any may.
    known: Vec<u64>,
    /// No state had passed on this socket when it was asked, so that its answer may be one from before it came back.
    newcomer: bool,
    /// It was asked as the one that drove, and has lost control since. What it has on its way may be a state that was
    /// refused; with the handshake it carries no epoch, as all its states do but answers.
    outlived: bool,
}

/// A frame on its way to several seats, in the two forms that clients with and without the handshake get.
#[derive(Debug)]
pub struct Parcel {
    /// As its sender wrote it.
    text: Bytes,
    /// With `epoch` and `seq`, made when first needed.
    numbered: Option<Bytes>,
    epoch: Epoch,
    seq: Seq,
    /// Its type.
    pub kind: FrameType,
    /// Whose state it is, if it is one that a newer one may replace.
    pub state_of: Option<ConnectionId>,
    /// The hash of the state in it.
    pub state_hash: Option<u64>,
}

impl Parcel {
    /// A frame let through in `epoch` as number `seq` of its sender.
    #[must_use]
    pub fn new(text: Bytes, kind: FrameType, epoch: Epoch, seq: Seq) -> Self {
        Self { text, numbered: None, epoch, seq, kind, state_of: None, state_hash: None }
    }

    fn for_seat(&mut self, modern: bool) -> Bytes {
        if !modern {
            return self.text.clone();
        }
        let (text, epoch, seq) = (&self.text, self.epoch, self.seq);
        let number = || outgoing::with_members(text, &[("epoch", epoch.0.into()), ("seq", seq.0.into())]);
        self.numbered.get_or_insert_with(number).clone()
    }
}

impl Member {
    /// A seat for a socket that has just opened.
    #[must_use]
    pub fn new(connection: ConnectionId, room: Arc<Room>) -> Self {
        Self { connection, room, outbound: Outbound::default(), state: Mutex::default(), refused: AtomicU64::new(0) }
    }

    /// Its state.
    pub fn lock(&self) -> MutexGuard<'_, MemberState> {
        self.state.lock()
    }

    /// Notes that one of its frames was refused.
    pub fn note_refusal(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How many of its frames were refused so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Puts a forwarded frame into the queue. How many older states went for it.
    pub fn deliver(&self, parcel: &mut Parcel, limits: &QueueLimits) -> usize {
        let mut state = self.state.lock();
        // Whoever waits for control with a state of its own is past those of the one it takes control from.
        let overtaken = parcel.state_of.is_some() && state.held.is_some();
        if state.superseded || overtaken {
            return 0;
        }
        if let Some(hash) = parcel.state_hash {
            state.note_state(hash);
            state.updated |= parcel.state_of.is_some();
        }
        let text = parcel.for_seat(state.client_view.modern);
        drop(state);
        let state_of = parcel.state_of.map(|source| (source, parcel.epoch));
        match self.outbound.push(Item { text, kind: parcel.kind, state_of }, limits) {
            Pushed::Queued(superseded) => superseded,
            Pushed::Refused => 0,
        }
    }

    /// Puts a frame of the relay's own into the queue.
    pub fn send(&self, text: Bytes, kind: FrameType, limits: &QueueLimits) {
        self.outbound.push(Item { text, kind, state_of: None }, limits);
    }
}

impl MemberState {
    /// Whether its role frames and states were under way when it was told that it does not drive. A confirmation that
    /// went astray with another socket of the same client is not waited for for ever.
    #[must_use]
    pub fn awaits_ack(&self, now: Instant) -> bool {
        self.last_pending_ack().is_some_and(|sent| now.saturating_duration_since(sent) < ACK_TIMEOUT)
    }

    /// When it was last sent something that it has yet to confirm.
    #[must_use]
    pub fn last_pending_ack(&self) -> Option<Instant> {
        self.pending_acks.back().copied().max(self.inherited_ack)
    }

    /// Notes how much of what it was just told it has to confirm.
    pub fn expect_acks(&mut self, now: Instant) {
        self.pending_acks.retain(|sent| now.saturating_duration_since(*sent) < ACK_TIMEOUT);
        for _ in 0..std::mem::take(&mut self.client_view.acks) {
            if self.pending_acks.len() == MAX_PENDING_ACKS {
                self.pending_acks.pop_front();
            }
            self.pending_acks.push_back(now);
        }
    }

    /// Notes a confirmation. Those that never come are the oldest. What an older socket was sent need not be confirmed
    /// besides: it may have died before that arrived.
    pub fn acknowledge_loss(&mut self) {
        self.pending_acks.pop_back();
        self.confirmed = true;
        if self.pending_acks.is_empty() {
            self.inherited_ack = None;
        }
    }

    /// Notes that so many of the things that it was to confirm were taken back before it got them.
    pub fn withdraw_acks(&mut self, withdrawn: usize) {
        self.pending_acks.truncate(self.pending_acks.len().saturating_sub(withdrawn));
    }

    /// Takes over what the client was sent on an older socket, and has not confirmed there.
    pub fn inherit_ack(&mut self, acks: Option<Instant>) {
        if !self.confirmed {
            self.inherited_ack = acks;
        }
    }

    /// The next number among its frames.
    pub fn next_seq(&mut self) -> Seq {
        self.seq.0 += 1;
        self.seq
    }

    /// The name its peers know it by, once it has joined.
    #[must_use]
    pub fn name(&self) -> Option<&ClientId> {
        self.client.as_ref().map(Client::name)
    }

    /// Notes that it is asked for its state, by `asker` or by the relay itself.
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

    /// Notes that a state of this hash passed to or from it.
    pub fn note_state(&mut self, hash: u64) {
        self.last_state = Some(hash);
        if let Some(open) = &mut self.open_sync
            && open.known.len() < MAX_KNOWN
        {
            open.known.push(hash);
        }
    }

    /// Notes that it answered with this state. Whatever it says next is something else, even if no state has ever passed.
    pub fn note_answer(&mut self, hash: u64) {
        self.sent = Some(hash);
        if let Some(open) = self.open_sync.as_mut().filter(|open| open.known.len() < MAX_KNOWN) {
            open.known.push(hash);
        }
    }

    /// Whether it shows a state of its own that has not passed.
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

    /// Notes that it sent this state as the one that drives: nobody waits for another answer of it.
    pub fn drove(&mut self, hash: u64) {
        self.sent = None;
        self.note_state(hash);
        self.answered();
    }

    /// Notes that it has lost control. What it answers to what it was asked as the driver is for nobody any more; but it
    /// may be under way, and is still an answer and nothing new.
    pub fn on_control_lost(&mut self) {
        self.open_sync.take_if(|open| open.known.is_empty());
        self.open_sync.iter_mut().for_each(|open| open.outlived = true);
        self.answered();
    }

    /// Those who wait for its answer, now that it is there. A second answer, to a second question, is still one and not
    /// a claim; it goes to nobody.
    pub fn answered(&mut self) -> Vec<Place> {
        self.open_sync.as_mut().map(|open| std::mem::take(&mut open.askers)).unwrap_or_default()
    }

    /// Whether a state of this hash would answer an open `request_sync`. `numbered`: it carries an epoch; `passed`: the
    /// states that passed in its session lately.
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
