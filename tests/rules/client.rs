//! A client as docs/protocol.md describes it: its beliefs, its frames, and its reactions.

use std::collections::VecDeque;

use gitorial_relay::control::Direction;
use gitorial_relay::ids::{ConnectionId, Epoch};
use gitorial_relay::reconcile::{Notice, Phase};
use gitorial_relay::session::Role;

/// The kinds of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// Releases and takes control silently.
    First,
    /// Announces a release or a take.
    Second,
    /// Has done the handshake, and believes only the relay.
    Modern,
}

/// A frame from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Up {
    Handshake,
    Speak,
    Coordinate(Direction),
    Request,
    Offer,
    Accept(Option<String>),
    Decline(Option<String>),
    Release,
    State { answer: bool },
    Confirm,
}

impl Up {
    /// Whether it is dropped while its sender owes the relay a `confirm_transfer`.
    pub fn awaits_ack(&self) -> bool {
        !matches!(self, Self::Handshake | Self::Speak | Self::Coordinate(_) | Self::Confirm)
    }
}

/// A frame for a client.
#[derive(Clone, Debug)]
pub enum Down {
    /// A notice of the relay, with its epoch.
    Notice(Notice, Epoch),
    /// The answer to a handshake.
    Acknowledged { token: String, id: String, epoch: Epoch },
    /// An offer or a request of that name.
    Heard(String),
    /// The socket is closed.
    Closed,
}

/// A client's socket, and the frames in flight on it.
#[derive(Clone, Debug)]
pub struct Socket {
    pub node: usize,
    pub connection: ConnectionId,
    pub up: VecDeque<(Up, Option<Epoch>)>,
    pub down: VecDeque<Down>,
}

/// A client.
#[derive(Clone, Debug)]
pub struct Client {
    pub generation: Generation,
    pub name: String,
    pub phase: Phase,
    pub socket: Option<Socket>,
    /// It changed its own phase silently.
    pub silent: bool,
    /// The last epoch it was told, of the handshake.
    epoch: Epoch,
    /// The id and token by which it can resume once.
    pub join_request: Option<(String, String)>,
    /// The client that it believes has control, and the names of offers and requests, for its answers.
    names: Vec<String>,
}

impl Client {
    pub fn new(generation: Generation, number: usize) -> Self {
        Self {
            generation,
            name: format!("client_{number}"),
            phase: Phase::Idle,
            socket: None,
            silent: false,
            epoch: Epoch::default(),
            join_request: None,
            names: Vec::new(),
        }
    }

    pub fn send(&mut self, frame: Up) {
        let epoch = (self.generation == Generation::Modern).then_some(self.epoch).filter(|epoch| epoch.0 > 0);
        if let Some(socket) = &mut self.socket {
            socket.up.push_back((frame, epoch));
        }
    }

    /// Opens a socket. The client's belief after that depends on its generation.
    pub fn connected(&mut self, node: usize, connection: ConnectionId) {
        self.socket = Some(Socket { node, connection, up: VecDeque::new(), down: VecDeque::new() });
        let still = matches!(self.phase, Phase::Active | Phase::Passive) && self.generation == Generation::First;
        self.phase = if still { self.phase } else { Phase::Idle };
        self.epoch = Epoch::default();
        if self.generation == Generation::Modern {
            self.send(Up::Handshake);
        }
    }

    /// Does one of the acts that its user can do now.
    pub fn act(&mut self, choice: u8) {
        if self.socket.is_none() {
            return;
        }
        let name = self.names.last().cloned();
        match (self.generation, self.phase, choice % 8) {
            (_, _, 0) => self.send(Up::Speak),
            (_, _, 1) => self.send(Up::Request),
            (_, _, 2) => self.send(Up::Decline(name)),
            (Generation::Modern, _, 3) => self.send(Up::Coordinate(Direction::Active)),
            (Generation::Modern, _, 4) => self.send(Up::Coordinate(Direction::Passive)),
            (Generation::Modern, _, 5) => self.send(Up::Accept(name)),
            (Generation::Modern, Phase::Active, 6) => self.let_go(),
            (Generation::Modern, _, _) => self.send(if choice < 128 { Up::Offer } else { Up::State { answer: false } }),
            (_, Phase::Idle, 3 | 4) => self.choose(Direction::Active),
            (_, Phase::Idle, _) => self.choose(Direction::Passive),
            (_, Phase::Pull | Phase::Push, _) => {}
            (_, Phase::Active, 3 | 4) => self.send(Up::State { answer: false }),
            (_, Phase::Active, 5) => self.send(Up::Offer),
            (_, Phase::Active, 6) => self.let_go(),
            (_, Phase::Active, _) => self.send(Up::Accept(name)),
            (Generation::First, Phase::Passive, 3) => {
                (self.phase, self.silent) = (Phase::Active, true);
            }
            (_, Phase::Passive, _) => {
                self.phase = Phase::Active;
                self.send(Up::Accept(name));
            }
        }
    }

    fn choose(&mut self, direction: Direction) {
        self.phase = if direction == Direction::Active { Phase::Pull } else { Phase::Push };
        self.send(Up::Coordinate(direction));
    }

    fn let_go(&mut self) {
        if self.generation == Generation::First {
            (self.phase, self.silent) = (Phase::Passive, true);
        } else {
            // A client with the handshake that released control follows no controller, and calls that PASSIVE.
            self.phase = if self.generation == Generation::Modern { Phase::Passive } else { Phase::Idle };
            self.send(Up::Release);
        }
    }

    /// Takes the next frame that has reached it.
    pub fn receive(&mut self) {
        let Some(frame) = self.socket.as_mut().and_then(|socket| socket.down.pop_front()) else { return };
        match frame {
            Down::Closed => self.socket = None,
            Down::Heard(name) => self.names.push(name),
            Down::Acknowledged { token, id, epoch } => {
                self.join_request = Some((id, token));
                self.epoch = self.epoch.max(epoch);
            }
            Down::Notice(tell, epoch) => {
                self.epoch = epoch;
                self.hear(&tell);
            }
        }
    }

    /// The table "What old clients do with what they receive", and one line for clients with the handshake.
    fn hear(&mut self, tell: &Notice) {
        use Generation::{First, Modern, Second};
        let was = self.phase;
        self.phase = match (tell, self.generation, was) {
            (Notice::Assign(Role::Active), First, Phase::Idle | Phase::Pull) => Phase::Active,
            (Notice::Assign(Role::Active), Second | Modern, _) => Phase::Active,
            (Notice::Assign(Role::Passive | Role::Connected), First, Phase::Idle | Phase::Push) => Phase::Passive,
            (Notice::Assign(Role::Passive | Role::Connected), Second | Modern, _) => Phase::Passive,
            (Notice::ConfirmTransfer, First, Phase::Passive) => Phase::Active,
            (Notice::ConfirmTransfer, Second, _) => Phase::Active,
            (Notice::AcceptControl(_), First | Second, Phase::Active) => Phase::Passive,
            (Notice::ReleaseControl(_), Second | Modern, Phase::Passive) => Phase::Idle,
            _ => was,
        };
        match tell {
            Notice::AcceptControl(name) => {
                self.names.push(name.as_str().to_owned());
                if self.generation != Modern {
                    self.send(Up::Confirm);
                }
            }
            Notice::RoleChanged(name, Role::Active) => self.names.push(name.as_str().to_owned()),
            Notice::RequestSync => self.send(Up::State { answer: true }),
            _ => {}
        }
        if self.phase != was || matches!(tell, Notice::Assign(_)) {
            self.silent = false;
        }
    }

    /// Whether its belief agrees with the document.
    pub fn knows(&self, role: Role) -> bool {
        match (role, self.phase) {
            (Role::Active, Phase::Active) | (Role::Passive, Phase::Passive) | (Role::Connected, Phase::Idle) => true,
            // It released silently.
            (Role::Active, Phase::Passive) => self.silent,
            // The first generation cannot be sent back to idle, and a client with the handshake calls it PASSIVE.
            (Role::Connected, Phase::Passive) => self.generation != Generation::Second,
            _ => false,
        }
    }
}
