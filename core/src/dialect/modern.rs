//! Clients with the handshake: one frame tells a role, and a client believes only what it is told.

use super::{Belief, Phase};
use crate::reconcile::Notice;
use crate::session::{Client, Role, Session};

/// What the relay remembers of a client with the handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Modern {
    /// It gave control up, and believes to be a follower since.
    let_go: bool,
}

impl Modern {
    /// The client asked, so it is told its role whatever that is.
    pub(super) fn believes(&mut self, phase: &mut Phase, retell: &mut bool, belief: Belief) {
        *retell = true;
        self.let_go = belief == Belief::LetGo;
        if self.let_go {
            *phase = Phase::Idle;
        }
    }

    pub(super) fn tell_role(
        &mut self,
        phase: &mut Phase,
        retell: bool,
        role: Role,
        me: &Client,
        after: &Session,
        out: &mut Vec<Notice>,
    ) {
        match role {
            Role::Active => {
                self.let_go = false;
                out.push(Notice::Assign(Role::Active));
                *phase = Phase::Active;
            }
            Role::Passive if *phase != Phase::Passive || retell => {
                out.push(Notice::Assign(Role::Passive));
                *phase = Phase::Passive;
            }
            Role::Connected if *phase == Phase::Active => {
                out.push(Notice::Assign(Role::Passive));
                self.free(phase, me, after, out);
            }
            // It gave control up, or asked for a role that a change for all clients then took away. The last change
            // counts.
            Role::Connected if retell => {
                out.push(Notice::Assign(Role::Connected));
                self.free(phase, me, after, out);
            }
            Role::Passive | Role::Connected => {}
        }
    }

    /// PASSIVE says that a client follows. A client that has no role is told that there is nobody to follow, unless it
    /// has given control up itself: such a client takes itself for a follower until another has control.
    fn free(&self, phase: &mut Phase, me: &Client, after: &Session, out: &mut Vec<Notice>) {
        let by_choice = self.let_go || after.core.controller.is_some();
        if !by_choice {
            let ended = after.core.ended.as_ref().map(|ended| &ended.client);
            out.push(Notice::ReleaseControl(ended.unwrap_or_else(|| me.name()).clone()));
        }
        *phase = Phase::Idle;
    }
}
