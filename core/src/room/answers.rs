//! Which state of a client is new, and which is an answer to a `request_sync` (docs/protocol.md, "States").

use super::recent::RecentStates;
use crate::control::StateKind;
use crate::ids::{Epoch, Millis};
use crate::protocol::Frame;
use crate::session::Place;

/// How long a client has to answer a `request_sync`, in milliseconds.
const ANSWER_WINDOW: Millis = 5_000;

/// The largest number of states that may cross an answer on the way.
const MAX_KNOWN: usize = 32;

/// The largest number of clients that may wait for one client's answer to `request_sync`.
const MAX_ASKERS: usize = 64;

/// The states that one client has seen and sent, as far as the relay has to know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Answers {
    /// The hash of the last state that passed from or to the client.
    pub last: Option<u64>,
    /// The hash of the last state that the client sent and that did not pass to all. The client repeats it when it is
    /// asked, even if it was refused.
    pub sent: Option<u64>,
    /// A new state has passed from or to the client since it last asked for the state.
    pub updated: bool,
    /// The client was sent an answer while it was the controller, and has sent no state since: the answer may cross its next
    /// one.
    pub may_cross: bool,
    /// The client may send one initial state as a follower, in this epoch: a later controller has a state of its own.
    pub initial_push: Option<Epoch>,
    /// The question that it has not answered yet.
    open: Option<OpenSync>,
}

/// A `request_sync` that a client has not answered yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct OpenSync {
    /// The deadline for the answer.
    until: Millis,
    /// The clients that get the answer.
    askers: Vec<Place>,
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

impl Answers {
    /// Notes that the client is asked for its state, by `asker` or by the relay itself.
    pub(super) fn ask(&mut self, asker: Option<Place>, now: Millis) {
        let last = self.last;
        let open = self.open.take().filter(|open| open.until > now);
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
        self.open = Some(open);
    }

    /// Notes that a state with this hash passed from or to the client.
    pub(super) fn note_state(&mut self, hash: u64) {
        self.last = Some(hash);
        if let Some(open) = self.open.as_mut().filter(|open| open.known.len() < MAX_KNOWN) {
            open.known.push(hash);
        }
    }

    /// Notes that the client answered with this state. Its next state is not an answer, even if no state has ever
    /// passed.
    pub(super) fn note_answer(&mut self, hash: u64) {
        self.sent = Some(hash);
        if let Some(open) = self.open.as_mut().filter(|open| open.known.len() < MAX_KNOWN) {
            open.known.push(hash);
        }
    }

    /// Whether the client shows a state of its own that has not passed.
    pub(super) fn is_ahead(&self) -> bool {
        self.sent.is_some() && self.sent != self.last
    }

    /// Notes that the client sent this state as the controller, so that no other answer of it is expected.
    pub(super) fn drove(&mut self, hash: u64) {
        self.sent = None;
        self.note_state(hash);
        self.answered();
    }

    /// Notes that the client has lost control. Its answer to a question to the controller goes to nobody now. The
    /// answer may be under way, and still counts as an answer and not as a new state. `modern`: it has done the
    /// handshake, so its answers differ from other states that are under way, even if no state has ever passed.
    pub(super) fn on_control_lost(&mut self, modern: bool) {
        self.open.take_if(|open| open.known.is_empty() && !modern);
        self.open.iter_mut().for_each(|open| open.outlived = true);
        self.answered();
    }

    /// Returns the clients that wait for the answer that has just arrived. A second answer, to a second question, also
    /// counts as an answer and not as a claim; it goes to nobody.
    pub(super) fn answered(&mut self) -> Vec<Place> {
        self.open.as_mut().map(|open| std::mem::take(&mut open.askers)).unwrap_or_default()
    }

    /// Whether this state can answer an open `request_sync`. `modern`: its sender has done the handshake; `passed`: the
    /// states that passed in its session recently.
    pub(super) fn is_answer(&self, frame: &Frame, modern: bool, passed: &RecentStates, now: Millis) -> bool {
        let hash = frame.data_hash();
        self.open.as_ref().filter(|open| open.until > now).is_some_and(|open| {
            let known = open.known.contains(&hash) || [self.last, self.sent].contains(&Some(hash));
            // An answer belongs to no epoch. A state that names one was under way when its sender lost control.
            let current = modern && frame.epoch.is_some();
            let any = self.takes_any_answer() && !current;
            let from_before = open.newcomer && passed.contains(hash);
            known || any || from_before || (open.outlived && modern && frame.epoch.is_none())
        })
    }

    /// Whether any state can be the answer to an open question: none has passed on this socket yet, and the client has sent
    /// none, which it would repeat.
    pub(super) fn takes_any_answer(&self) -> bool {
        self.last.is_none() && self.sent.is_none() && self.open.as_ref().is_some_and(|open| open.known.is_empty())
    }

    /// Whether this answer is one only because nothing shows that it is none: no state has passed yet that it could
    /// repeat. `passed`: the states that passed in its session recently.
    pub(super) fn is_unsure(&self, answer: &Frame, passed: &RecentStates) -> bool {
        self.takes_any_answer() && !passed.contains(answer.data_hash())
    }

    /// Classifies a state, as far as its sender's connection allows. `at`: the session's epoch, and the node's own time.
    pub(super) fn classify(
        &mut self,
        frame: &Frame,
        modern: bool,
        passed: &RecentStates,
        at: (Epoch, Millis),
    ) -> StateKind {
        let (epoch, now) = at;
        if self.is_answer(frame, modern, passed, now) {
            StateKind::Answer
        } else if modern && !passed.contains(frame.data_hash()) && self.initial_push.take() == Some(epoch) {
            // A state that passed is an answer that came too late.
            StateKind::InitialPush
        } else {
            StateKind::Drive
        }
    }
}
