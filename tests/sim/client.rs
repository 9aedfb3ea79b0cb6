//! A client of a simulated world: the fault suite's, on a socket that it opens again whenever it ends.

use gitorial_relay::ids::Millis;

use super::brain::Brain;
use super::history::{Standing, Who};
use super::node::SocketNumber;
use super::support::old_script::Generation;

/// What reaches a client.
#[derive(Clone, Debug)]
pub enum Down {
    Opened,
    Text(String),
    Probe(u64),
    Close(u16, String),
    Lost,
}

/// A client's end of its socket.
#[derive(Debug)]
pub struct ClientSocket {
    pub number: SocketNumber,
    pub node: usize,
    pub boot: u64,
    pub open: bool,
    /// Its user has called `disconnect()`, and its close is on the way.
    pub closing: bool,
    /// When the last frame in each direction arrives, because a socket keeps their order.
    pub up_at: Millis,
    pub down_at: Millis,
    pub heard: Millis,
}

/// A client.
pub struct Client {
    pub who: Who,
    pub brain: Brain,
    pub socket: Option<ClientSocket>,
    pub failures: u32,
    /// It never comes back.
    pub gone: bool,
    /// It reads nothing.
    pub stalled: bool,
    /// What has reached its socket meanwhile.
    pub waiting: Vec<Down>,
}

impl Client {
    pub fn new(client: usize, generation: Option<Generation>) -> Self {
        let who = Who { session: 0, client };
        Self {
            who,
            brain: Brain::new(who, generation),
            socket: None,
            failures: 0,
            gone: false,
            stalled: false,
            waiting: Vec::new(),
        }
    }

    /// Its knowledge now.
    pub fn standing(&self) -> Standing {
        let open = self.socket.as_ref().is_some_and(|socket| socket.open && !socket.closing);
        Standing {
            who: self.who,
            active: self.brain.is_active(),
            follows: self.brain.follows(),
            connected: open && self.brain.is_ready(),
            stubborn: self.brain.is_stubborn(),
            deserted: self.brain.is_deserted(),
            returned: self.brain.has_returned(),
            lost_role: self.brain.has_lost_its_role(),
            last: self.brain.last(),
        }
    }
}
