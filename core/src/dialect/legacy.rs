//! Clients without the handshake: everything that exists only for them (docs/protocol.md, "How a role is told").
//!
//! Such a client runs a state machine of its own, and ignores a role that does not fit its [`Phase`]. So it is told by a
//! sequence of frames that fits that phase:
//!
//! | role in the document | phase | frames |
//! | --- | --- | --- |
//! | active | `Push` | assign PASSIVE, assign ACTIVE, `confirm_transfer` |
//! | active | any other | assign ACTIVE, `confirm_transfer` |
//! | passive | `Pull` | assign ACTIVE, assign PASSIVE, `accept_control` |
//! | passive | `Push` | assign PASSIVE |
//! | passive | `Idle`, `Active` | assign PASSIVE, `accept_control` |
//! | connected | `Active`, `Pull`, `Push` | as for passive, then `release_control` |
//! | connected | `Passive` | `release_control` |
//!
//! It answers every `accept_control` by a `confirm_transfer`. Until that answer is there, its role frames and states may
//! have been sent before it knew, and are dropped ([`Acks`]).
//!
//! It answers some frames although it has sent its close, and that can crash it. So these frames are held for a moment,
//! and dropped if its close comes first ([`ANSWER_HOLD`], [`LEAVE_HOLD`]).

use std::collections::VecDeque;

use super::{Belief, Phase};
use crate::ids::{ClientId, Millis};
use crate::protocol::{Frame, FrameType};
use crate::reconcile::Notice;
use crate::session::{Client, Role, Session};

/// How long a frame that makes a client answer is held, in milliseconds (docs/protocol.md, "Frames that are held").
pub const ANSWER_HOLD: Millis = 40;

/// How long frames are held after another client has left, in milliseconds (docs/protocol.md, "Frames that are held").
pub const LEAVE_HOLD: Millis = 100;

/// Leaves in quick succession extend [`LEAVE_HOLD`] to at most this, in milliseconds.
pub const LONGEST_LEAVE_HOLD: Millis = 500;

/// How long the relay waits for a client's acknowledgement that it is not the controller, in milliseconds.
const ACK_TIMEOUT: Millis = 10_000;

/// The largest number of acknowledgements that a client may owe.
const MAX_PENDING_ACKS: usize = 32;

/// Whether a client answers this frame automatically.
#[must_use]
pub const fn is_answered(kind: FrameType) -> bool {
    matches!(kind, FrameType::AcceptControl | FrameType::RequestSync)
}

/// Whether this frame may overtake held frames: it changes no client's phase, and no other frame refers to it.
#[must_use]
pub const fn may_overtake(kind: FrameType) -> bool {
    matches!(kind, FrameType::StateUpdate | FrameType::Rejected | FrameType::ProtocolAck | FrameType::ProtocolPong)
}

/// What the relay remembers of a client without the handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Legacy {
    /// The acknowledgements that it owes.
    pub acks: Acks,
    /// It already believed to have control when it was granted control. A release of it may cross the news of the
    /// grant.
    assured: bool,
    /// It was told that it has control while its question for control was under way.
    ask_crossed_grant: bool,
    /// It joined under another controller and has not chosen a role yet: it may have come back to follow.
    may_be_back: bool,
    /// It joined while nobody had control. It may still believe to have control, and its first state is a take.
    joined_free: bool,
    /// It may have taken control in silence, by a state that counted as an answer.
    may_drive: bool,
    /// A frame that is forwarded when the client gets control.
    pub held: Option<Frame>,
}

impl Legacy {
    /// Whether this frame is dropped, because the client may have sent it before it knew that it lost control.
    #[must_use]
    pub fn drops(&self, kind: FrameType, now: Millis) -> bool {
        let says_it_drives = matches!(
            kind,
            FrameType::StateUpdate
                | FrameType::RequestControl
                | FrameType::OfferControl
                | FrameType::AcceptControl
                | FrameType::DeclineControl
                | FrameType::ReleaseControl
        );
        says_it_drives && self.acks.are_pending(now)
    }

    /// Notes that the client acknowledged a loss. Returns `true` if it may have come back to follow.
    pub fn acknowledge(&mut self) -> bool {
        self.acks.acknowledge();
        std::mem::take(&mut self.may_be_back)
    }

    /// Notes that a state of the client counted as an answer, though it can be a silent take. The client is told that it
    /// has no control.
    pub(super) fn doubt(&mut self) {
        self.may_drive = true;
    }

    /// Notes that the client chooses a role: it knows that it has none, so it need not be told that it is not the
    /// controller. `withdrawn`: how many notices to acknowledge were withdrawn before the client got them.
    pub fn chooses(&mut self, withdrawn: usize) {
        self.acks.withdraw(withdrawn);
        self.may_be_back = false;
    }

    /// Sends `accept_control` to a client that joins under another controller: it may be a returning client that still
    /// believes to have control. If nobody has control then, it is sent when a controller comes back to which the store
    /// has restored control: a new one is told by the role that everybody gets.
    pub(crate) fn correct_newcomer(&mut self, me: &Client, after: &Session, now: Millis, out: &mut Vec<Notice>) {
        let other = after.core.controller.as_ref().filter(|controller| controller.place.connection != me.connection);
        self.joined_free = other.is_none();
        if let Some(controller) = other {
            self.take_from(&controller.client, now, out);
            self.may_be_back = true;
        }
    }

    /// Whether it joined while nobody had control, and has heard of no role since.
    pub(crate) fn joined_free(&self) -> bool {
        self.joined_free
    }

    /// Tells the client that another one has taken control. It has to acknowledge that.
    fn take_from(&mut self, by: &ClientId, now: Millis, out: &mut Vec<Notice>) {
        out.push(Notice::AcceptControl(by.clone()));
        self.acks.expect(now);
    }

    pub(super) fn believes(&mut self, phase: &mut Phase, retell: &mut bool, belief: Belief) {
        self.joined_free = false;
        *phase = match belief {
            Belief::Pull => {
                self.ask_crossed_grant = *phase == Phase::Active;
                Phase::Pull
            }
            Belief::Push => Phase::Push,
            Belief::Drives => {
                // A client that was told already is not told again, because its release could cross the news.
                *retell |= *phase != Phase::Active;
                Phase::Active
            }
            // The news of its grant may be under way still, and would make it ACTIVE again. So it counts as ACTIVE, and
            // is told that it is not.
            Belief::LetGo if std::mem::take(&mut self.assured) => Phase::Active,
            Belief::LetGo => Phase::Idle,
        };
    }

    pub(super) fn tell_role(
        &mut self,
        phase: &mut Phase,
        role: Role,
        me: &Client,
        after: &Session,
        now: Millis,
        out: &mut Vec<Notice>,
    ) {
        let may_drive = std::mem::take(&mut self.may_drive);
        self.joined_free &= role == Role::Connected;
        match role {
            Role::Active => self.grant(phase, out),
            Role::Passive if *phase != Phase::Passive => self.demote(phase, me, after, now, out),
            // It had control and there is no controller now, because its node had lost its place; or it waits for a
            // role that it could not be given.
            Role::Connected if matches!(*phase, Phase::Active | Phase::Pull | Phase::Push) => {
                self.demote(phase, me, after, now, out);
                out.push(Notice::ReleaseControl(me.name().clone()));
                *phase = Phase::Idle;
            }
            // Its next state is a take in any case, so no acknowledgement is waited for.
            Role::Passive | Role::Connected => {
                let other = after.core.controller.as_ref().filter(|_| may_drive);
                out.extend(other.map(|controller| Notice::AcceptControl(controller.client.clone())));
            }
        }
    }

    /// *Grant*. A client that waits for PASSIVE ignores all else, so it is assigned PASSIVE first.
    fn grant(&mut self, phase: &mut Phase, out: &mut Vec<Notice>) {
        // A client that has not confirmed its last loss may not know of it.
        let crossed = std::mem::take(&mut self.ask_crossed_grant);
        self.assured = *phase == Phase::Active || crossed || self.acks.pending() > 0;
        if *phase == Phase::Push {
            out.push(Notice::Assign(Role::Passive));
        }
        out.extend([Notice::Assign(Role::Active), Notice::ConfirmTransfer]);
        *phase = Phase::Active;
    }

    /// *Demote*, or *refuse* for a client that waits for ACTIVE. A client that asked to follow is only assigned PASSIVE.
    fn demote(&mut self, phase: &mut Phase, me: &Client, after: &Session, now: Millis, out: &mut Vec<Notice>) {
        match std::mem::replace(phase, Phase::Passive) {
            Phase::Push => return out.push(Notice::Assign(Role::Passive)),
            Phase::Pull => out.push(Notice::Assign(Role::Active)),
            Phase::Idle | Phase::Active | Phase::Passive => {}
        }
        out.push(Notice::Assign(Role::Passive));
        let by = after.core.controller.as_ref().map_or_else(|| me.name(), |controller| &controller.client);
        self.take_from(by, now, out);
    }
}

/// The `confirm_transfer`s that a client owes the relay for the notices that it is not the controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Acks {
    /// When each notice was sent that the client has not acknowledged yet, oldest first.
    pending: VecDeque<Millis>,
    /// When the client was last sent such a notice on an older socket, where it may have arrived.
    inherited: Option<Millis>,
    /// The client has acknowledged a loss, so it knew that it was not the controller, whatever its older socket was
    /// sent.
    confirmed: bool,
}

impl Acks {
    /// Whether the client has not yet acknowledged that it is not the controller. An acknowledgement that was lost with
    /// another socket of the client is waited for only until its time-out.
    #[must_use]
    pub fn are_pending(&self, now: Millis) -> bool {
        self.last().is_some_and(|sent| now.saturating_sub(sent) < ACK_TIMEOUT)
    }

    /// When the client was last sent a notice that it has to acknowledge.
    #[must_use]
    pub fn last(&self) -> Option<Millis> {
        self.pending.back().copied().max(self.inherited)
    }

    /// How many acknowledgements are pending on this socket.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Takes over the notices that the client was sent on an older socket and did not acknowledge there.
    pub fn inherit(&mut self, last: Option<Millis>) {
        if !self.confirmed {
            self.inherited = last;
        }
    }

    fn expect(&mut self, now: Millis) {
        self.pending.retain(|sent| now.saturating_sub(*sent) < ACK_TIMEOUT);
        if self.pending.len() == MAX_PENDING_ACKS {
            self.pending.pop_front();
        }
        self.pending.push_back(now);
    }

    /// The missing acknowledgements belong to the oldest notices. Notices on an older socket then need none, because
    /// the socket may have died before they arrived.
    fn acknowledge(&mut self) {
        self.pending.pop_back();
        self.confirmed = true;
        if self.pending.is_empty() {
            self.inherited = None;
        }
    }

    /// The client knows that it has no role. Notices that were withdrawn need no acknowledgement, nor do notices on an
    /// older socket.
    fn withdraw(&mut self, withdrawn: usize) {
        self.pending.truncate(self.pending.len().saturating_sub(withdrawn));
        (self.inherited, self.confirmed) = (None, true);
    }
}
