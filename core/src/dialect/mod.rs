//! Dialects: how clients of the two generations learn of their roles, and what their frames say about them.
//!
//! A client that has done the handshake believes what it is told, so one frame tells it a role ([`modern`]). A client
//! without it runs a state machine of its own; everything that exists only for such clients is in [`legacy`].
//!
//! The rules ([`crate::control`]) do not know the dialects. What they need of them has a name of its own: the
//! [`Stamp`] of a frame, [`crate::session::Client::announces_release`], and the controller that is flushed.

pub mod legacy;
pub mod modern;

use crate::control::{Direction, Intent, Stamp, StateKind};
use crate::ids::{Epoch, Millis};
use crate::protocol::Frame;
use crate::reconcile::Notice;
use crate::session::{Client, Role, Session};

pub use legacy::Legacy;
pub use modern::Modern;

/// The phase that a client believes to be in, as far as the relay knows (docs/protocol.md, "How a role is told").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It has no role.
    #[default]
    Idle,
    /// It asked to be ACTIVE and waits.
    Pull,
    /// It asked to be PASSIVE and waits.
    Push,
    /// It has control.
    Active,
    /// It follows.
    Passive,
}

/// The dialect of a client, with what the relay has to remember for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// It has not done the handshake.
    Legacy(Legacy),
    /// It has done the handshake.
    Modern(Modern),
}

impl Default for Dialect {
    fn default() -> Self {
        Self::Legacy(Legacy::default())
    }
}

/// One connection as the relay knows it: what the client was last told, and what it believes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientView {
    /// The phase that it believes to be in.
    pub phase: Phase,
    /// The last epoch that it was told.
    pub epoch: Epoch,
    /// It asked for a role, so it is told its role even if the role has not changed.
    pub retell: bool,
    /// It has been told of the other clients.
    pub introduced: bool,
    /// How it learns of its role.
    pub dialect: Dialect,
}

impl ClientView {
    /// The view of a socket that has just joined for this client.
    #[must_use]
    pub fn of(client: &Client) -> Self {
        let dialect = if client.modern { Dialect::Modern(Modern::default()) } else { Dialect::default() };
        Self { dialect, ..Self::default() }
    }

    /// Whether the client has done the handshake.
    #[must_use]
    pub fn is_modern(&self) -> bool {
        matches!(self.dialect, Dialect::Modern(_))
    }

    /// What only a client without the handshake needs, if this is one.
    #[must_use]
    pub fn legacy(&self) -> Option<&Legacy> {
        match &self.dialect {
            Dialect::Legacy(legacy) => Some(legacy),
            Dialect::Modern(_) => None,
        }
    }

    /// [`ClientView::legacy`], to change it.
    pub fn legacy_mut(&mut self) -> Option<&mut Legacy> {
        match &mut self.dialect {
            Dialect::Legacy(legacy) => Some(legacy),
            Dialect::Modern(_) => None,
        }
    }

    /// Notes that the client has done the handshake. Returns `true` if it had before, on another socket.
    pub fn handshake(&mut self) -> bool {
        let resumed = self.is_modern();
        if !resumed {
            self.dialect = Dialect::Modern(Modern::default());
        }
        resumed
    }

    /// What is known of the epoch of a frame. `controls`: the epoch in which its sender is the controller, if it is.
    #[must_use]
    pub fn stamp(&self, frame: &Frame, controls: Option<Epoch>) -> Stamp {
        match self.dialect {
            Dialect::Modern(_) => Stamp::Named(frame.epoch),
            Dialect::Legacy(_) => Stamp::Seen(controls),
        }
    }

    /// Notes that a state of the client counted as an answer, though nothing shows that it is one. Returns `true` if it
    /// can be a take, so that the client has to be told that it has no control.
    pub fn doubts_answer(&mut self) -> bool {
        let believes_to_drive = self.phase == Phase::Active;
        let legacy = self.legacy_mut().filter(|_| !believes_to_drive);
        legacy.map(Legacy::doubt).is_some()
    }

    /// Takes a frame's word for what its sender believes, though nothing was decided on it. A client that may believe
    /// something else now is told its role once more.
    pub fn was_not_decided(&mut self, belief: Belief) {
        match &self.dialect {
            // It asked, and was refused. Only a release changes what it believes by itself.
            Dialect::Modern(_) if belief != Belief::LetGo => {}
            Dialect::Modern(_) | Dialect::Legacy(_) => {
                self.believes(belief);
                self.retell = true;
            }
        }
    }

    /// Updates the view by a frame of the client, before the news of that frame's decision is computed.
    pub fn believes(&mut self, belief: Belief) {
        match &mut self.dialect {
            Dialect::Modern(modern) => modern.believes(&mut self.phase, &mut self.retell, belief),
            Dialect::Legacy(legacy) => legacy.believes(&mut self.phase, &mut self.retell, belief),
        }
    }

    /// Tells the client its own role, if its view differs from the document or the client asked.
    pub(crate) fn tell_role(&mut self, me: &Client, after: &Session, now: Millis, out: &mut Vec<Notice>) {
        if after.awaits(me.connection) {
            // Control is moving to this client. It is told its role when control arrives, or goes to another client.
            return;
        }
        let role = after.role(me);
        if role == Role::Active && after.core.transfer.is_some() {
            // Control is moving away from it: it is told when control has moved, also if it asked. Until then its states
            // may pass, so it is told an epoch that began at the same time.
            let began = std::mem::replace(&mut self.epoch, after.core.epoch) != after.core.epoch;
            if began && self.is_modern() {
                out.push(Notice::Assign(Role::Active));
                self.phase = Phase::Active;
            }
            return;
        }
        let retell = std::mem::take(&mut self.retell);
        let news = match role {
            Role::Active => self.phase != Phase::Active || self.epoch != after.core.epoch || retell,
            Role::Passive | Role::Connected => true,
        };
        if news {
            let phase = &mut self.phase;
            match &mut self.dialect {
                Dialect::Modern(modern) => modern.tell_role(phase, retell, role, me, after, out),
                Dialect::Legacy(legacy) => legacy.tell_role(phase, role, me, after, now, out),
            }
        }
        self.epoch = after.core.epoch;
    }

    /// Whether a controller that comes back on another socket repeats its state by itself.
    pub(crate) fn repeats_its_state(&self) -> bool {
        self.is_modern()
    }
}

/// What a client's own frame shows about the phase that it believes to be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belief {
    /// It waits for ACTIVE.
    Pull,
    /// It waits for PASSIVE.
    Push,
    /// It has control: it accepted, offered, or sent a state of its own.
    Drives,
    /// It gave control up.
    LetGo,
}

impl Belief {
    /// What a frame shows about its sender; `None` if it shows nothing. `held`: the sender was the controller before
    /// it.
    #[must_use]
    pub fn of(intent: &Intent, held: bool) -> Option<Self> {
        match intent {
            Intent::Coordinate(Direction::Active) => Some(Self::Pull),
            Intent::Coordinate(Direction::Passive) => Some(Self::Push),
            Intent::Accept(_) => Some(Self::Drives),
            // A frame that only a controller sends shows something new only if its sender is not the controller.
            Intent::Offer(_) | Intent::State(StateKind::Drive) => (!held).then_some(Self::Drives),
            Intent::Release => Some(Self::LetGo),
            Intent::Speak | Intent::Request | Intent::Decline(_) => None,
            Intent::State(StateKind::Answer | StateKind::InitialPush) => None,
        }
    }
}
