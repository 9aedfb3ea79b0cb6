//! How a client reacts to frames and to its user: clients of both existing generations, by the
//! script that the other tests use, and clients with the handshake as docs/protocol.md describes them. No sockets.

use std::sync::atomic::{AtomicU64, Ordering};

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::history::{Role, StateFrame, What, Who};
use super::support::old_script::{Call, Generation, Phase, Script};

/// The number of the next frame of this process that carries a state.
static FRAMES: AtomicU64 = AtomicU64::new(1);

/// The probability that a user of an existing client calls `disconnect()` instead of another act.
const GOODBYE: f64 = 0.01;

/// A client without its socket.
pub struct Brain {
    who: Who,
    kind: Kind,
    /// How many steps its user has taken.
    steps: u64,
    /// It has come back on another socket.
    returned: bool,
}

enum Kind {
    Old(Generation, Script),
    Modern(Modern),
}

/// A client with the handshake.
#[derive(Default)]
struct Modern {
    /// The relay has answered the handshake.
    entered: bool,
    token: Option<String>,
    epoch: u64,
    active: bool,
    follows: bool,
    controller: Option<String>,
    offer: Option<String>,
    request: Option<String>,
    last: Option<Value>,
    /// It had control when its socket was lost, and has not heard since that it lost it.
    drove: bool,
    /// It followed when its socket was lost.
    followed: bool,
    /// The epoch in which it was last told that it follows.
    followed_in: Option<u64>,
}

impl Brain {
    /// A client that has never been connected; if it has no generation it does the handshake.
    pub fn new(who: Who, generation: Option<Generation>) -> Self {
        let kind = match generation {
            Some(generation) => Kind::Old(generation, Script::new(generation, &who.id())),
            None => Kind::Modern(Modern::default()),
        };
        Self { who, kind, steps: 0, returned: false }
    }

    /// Whether it does the handshake.
    pub fn is_modern(&self) -> bool {
        matches!(self.kind, Kind::Modern(_))
    }

    /// Whether it keeps its role over a reconnect.
    pub fn is_stubborn(&self) -> bool {
        matches!(self.kind, Kind::Old(Generation::First, _))
    }

    /// The query in the address of its socket.
    pub fn query(&self) -> String {
        match &self.kind {
            Kind::Old(..) => String::new(),
            Kind::Modern(modern) => {
                let resume = modern.token.as_ref().map(|token| format!("&resume={token}")).unwrap_or_default();
                format!("&client={}{resume}", self.who.id())
            }
        }
    }

    /// Its socket has opened. Returns the frames that it sends.
    pub fn opened(&mut self) -> Vec<Value> {
        match &mut self.kind {
            Kind::Old(_, script) => {
                script.opened();
                Vec::new()
            }
            Kind::Modern(_) => vec![json!({ "type": "protocol_handshake", "protocol_version": 1, "timestamp": 1 })],
        }
    }

    /// Its socket is gone.
    pub fn closed(&mut self) {
        self.returned = true;
        if let Kind::Modern(modern) = &mut self.kind {
            modern.drove |= modern.active;
            // A socket that the relay never admitted changes nothing.
            if modern.entered {
                modern.followed = modern.follows;
            }
            (modern.entered, modern.active, modern.follows) = (false, false, false);
            (modern.offer, modern.request, modern.controller) = (None, None, None);
        }
    }

    /// Whether its user may act.
    pub fn is_ready(&self) -> bool {
        match &self.kind {
            Kind::Old(..) => true,
            Kind::Modern(modern) => modern.entered,
        }
    }

    /// Whether it believes that it has control.
    pub fn is_active(&self) -> bool {
        match &self.kind {
            Kind::Old(_, script) => script.phase == Phase::Active,
            Kind::Modern(modern) => modern.active,
        }
    }

    /// Whether it believes that it follows.
    pub fn follows(&self) -> bool {
        match &self.kind {
            Kind::Old(_, script) => script.phase == Phase::Passive,
            Kind::Modern(modern) => modern.follows,
        }
    }

    /// Whether its user has called `disconnect()`, and its socket has yet to close.
    pub fn is_closing(&self) -> bool {
        matches!(&self.kind, Kind::Old(_, script) if script.closing)
    }

    /// Whether its user is gone though it has come back by itself.
    pub fn is_deserted(&self) -> bool {
        matches!(&self.kind, Kind::Old(_, script) if script.phase == Phase::Disconnected)
    }

    /// Whether it has come back without a handshake, which would have told its role.
    pub fn has_returned(&self) -> bool {
        self.returned && !self.is_modern()
    }

    /// Whether it was told that it follows, in the epoch that it still knows, and that it has no role.
    pub fn has_lost_its_role(&self) -> bool {
        match &self.kind {
            Kind::Old(..) => false,
            Kind::Modern(modern) => !modern.active && !modern.follows && modern.followed_in == Some(modern.epoch),
        }
    }

    /// The last state it sent or received.
    pub fn last(&self) -> Option<(Who, u64)> {
        let last = match &self.kind {
            Kind::Old(_, script) => script.state.as_ref(),
            Kind::Modern(modern) => modern.last.as_ref(),
        };
        last.and_then(author_and_step)
    }

    /// Handles a frame. Returns the events to record, and its answers.
    pub fn on_text(&mut self, text: &str) -> (Vec<What>, Vec<Value>) {
        let frame: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        let mut notes = Vec::new();
        if frame["type"] == "state_update" {
            notes.extend(state_of(&frame, self.is_modern()).map(What::Got));
        }
        if frame["type"] == "rejected" {
            notes.push(What::Refused(frame["data"]["code"].as_str().unwrap_or_default().to_owned()));
        }
        let was = self.is_active();
        let mut answers = match &mut self.kind {
            Kind::Old(_, script) => {
                let answers = script.on_text(text);
                notes.extend(script.violations.drain(..).map(What::Hurt));
                script.refusals.clear();
                answers
            }
            Kind::Modern(modern) => modern.on_frame(self.who, &frame, &mut notes),
        };
        if !self.is_modern() && self.is_active() != was {
            notes.push(What::ClientView(if was { Role::Other } else { Role::Active }, None));
        }
        answers.iter_mut().for_each(|frame| mark(frame, true));
        notes.extend(answers.iter().filter_map(|frame| state_of(frame, true)).map(What::Sent));
        (notes, answers)
    }

    /// Its user acts. Returns the events to record, and the frames that it sends.
    pub fn act(&mut self, rng: &mut StdRng) -> (Vec<What>, Vec<Value>) {
        let step = self.steps + 1;
        let state = json!({ "author": self.who.id(), "step": step, "tutorialId": "react-basics" });
        let was = self.is_active();
        let mut frames = match &mut self.kind {
            Kind::Old(generation, script) => old_act(*generation, script, state, rng),
            Kind::Modern(modern) => modern.act(self.who, state, rng),
        };
        let mut notes = Vec::new();
        if self.is_active() != was {
            notes.push(What::ClientView(if was { Role::Other } else { Role::Active }, None));
        }
        for frame in &mut frames {
            mark(frame, false);
            if frame["type"] == "state_update" {
                self.steps = step;
                notes.extend(state_of(frame, true).map(What::Sent));
            }
        }
        (notes, frames)
    }
}

impl Modern {
    fn on_frame(&mut self, who: Who, frame: &Value, notes: &mut Vec<What>) -> Vec<Value> {
        let kind = frame["type"].as_str().unwrap_or_default();
        if kind == "protocol_ack" {
            return self.enter(who, frame, notes);
        }
        if let Some(epoch) = frame["epoch"].as_u64()
            && epoch > self.epoch
        {
            self.epoch = epoch;
            (self.offer, self.request) = (None, None);
        }
        let from = frame["clientId"].as_str().unwrap_or_default().to_owned();
        match kind {
            "assign_sync_direction" if self.entered => {
                let active = frame["data"]["assignedDirection"] == "ACTIVE";
                (self.active, self.follows) = (active, !active);
                self.followed_in = frame["epoch"].as_u64().filter(|_| !active);
                notes.push(What::ClientView(if active { Role::Active } else { Role::Other }, frame["epoch"].as_u64()));
                // The last frame may have been lost with the connection.
                let again = active && std::mem::take(&mut self.drove);
                if !active {
                    self.drove = false;
                }
                return if again { self.repeat(who) } else { Vec::new() };
            }
            "state_update" => {
                self.last = Some(frame["data"].clone());
                self.drove = false;
            }
            "request_sync" => return self.answer(who),
            "request_control" => self.request = Some(from),
            "offer_control" => self.offer = Some(from),
            "release_control" => {
                self.follows = false;
                (self.controller, self.followed_in) = (None, None);
            }
            "role_changed" if frame["data"]["role"] == "active" => self.controller = Some(from),
            "error" => notes.push(What::Hurt("an error was sent".to_owned())),
            _ => {}
        }
        Vec::new()
    }

    /// The relay accepts it and tells its current role.
    fn enter(&mut self, who: Who, ack: &Value, notes: &mut Vec<What>) -> Vec<Value> {
        let resumed = ack["resumed"] == true;
        let epoch = ack["epoch"].as_u64().unwrap_or_default();
        let on_its_way = self.drove && resumed && epoch == self.epoch;
        self.token = ack["resume"].as_str().map(str::to_owned);
        (self.entered, self.epoch) = (true, epoch);
        (self.active, self.follows) = (ack["role"] == "active", ack["role"] == "passive");
        if self.follows {
            self.followed_in = Some(epoch);
        }
        notes.push(What::ClientView(if self.active { Role::Active } else { Role::Other }, Some(epoch)));
        if self.active {
            self.drove = false;
            return self.repeat(who);
        }
        let lost = ack["role"] == "connected" && (on_its_way || !resumed);
        self.drove &= on_its_way || lost;
        match (lost, self.drove, self.followed) {
            (true, true, _) => vec![coordinate(who, "ACTIVE")],
            (true, false, true) => vec![coordinate(who, "PASSIVE")],
            _ => Vec::new(),
        }
    }

    fn repeat(&self, who: Who) -> Vec<Value> {
        let repeat = |state: &Value| envelope(who, "state_update", state.clone(), Some(self.epoch));
        self.last.iter().map(repeat).collect()
    }

    fn answer(&self, who: Who) -> Vec<Value> {
        self.last.iter().map(|state| envelope(who, "state_update", state.clone(), None)).collect()
    }

    fn act(&mut self, who: Who, state: Value, rng: &mut StdRng) -> Vec<Value> {
        let chance = rng.random_range(0..100);
        let epoch = (self.epoch > 0).then_some(self.epoch);
        let names = |name: &Option<String>| json!({ "fromClientId": name, "timestamp": 1 });
        let frame = |kind: &str, data: Value| vec![envelope(who, kind, data, epoch)];
        if self.active {
            return match (chance, self.request.take()) {
                (0..60, Some(name)) => frame("accept_control", names(&Some(name))),
                (60..90, Some(name)) => frame("decline_control", names(&Some(name))),
                (0..4, None) => {
                    // A release needs no permission: from now on it sends nothing.
                    self.active = false;
                    frame("release_control", json!({ "timestamp": 1 }))
                }
                (4..10, None) => frame("offer_control", json!({ "tutorialState": self.last, "metadata": {} })),
                _ => {
                    self.last = Some(state.clone());
                    frame("state_update", state)
                }
            };
        }
        match (chance, self.offer.take(), &self.controller) {
            (0..50, Some(name), _) => frame("accept_control", names(&Some(name))),
            (50..80, Some(name), _) => frame("decline_control", names(&Some(name))),
            (0..4, None, Some(_)) => frame("accept_control", names(&self.controller)),
            (4..8, None, Some(_)) => {
                vec![envelope(who, "request_control", json!({ "requestingClientId": who.id() }), None)]
            }
            (0..25, None, _) if !self.follows => vec![coordinate(who, "ACTIVE")],
            (25..50, None, _) if !self.follows => vec![coordinate(who, "PASSIVE")],
            _ => Vec::new(),
        }
    }
}

/// A user of an existing client that calls only what the client allows.
fn old_act(generation: Generation, script: &mut Script, state: Value, rng: &mut StdRng) -> Vec<Value> {
    let chance = rng.random_range(0..100);
    // It leaves and comes back by itself: with its old role, or without one.
    if script.phase != Phase::Disconnected && rng.random_bool(GOODBYE) {
        return script.call(&Call::Disconnect);
    }
    match (script.phase, chance) {
        (Phase::Passive, 0..60) if script.offer.is_some() => script.call(&Call::Accept),
        (Phase::Passive, 60..80) if script.offer.is_some() => script.call(&Call::Decline),
        // The first generation takes control silently: its next state says so.
        (Phase::Passive, 0..4) if generation == Generation::First => {
            script.call(&Call::Take);
            script.call(&Call::SendState(state))
        }
        (Phase::Passive, 0..4) if script.driver.is_some() => script.call(&Call::Take),
        (Phase::Idle, 0..25) => script.call(&Call::Pull),
        (Phase::Idle, 25..50) => script.call(&Call::Push),
        (Phase::Active, 0..4) if generation == Generation::Second => script.call(&Call::Release),
        (Phase::Active, 4..10) => script.call(&Call::Offer),
        (Phase::Active, _) => script.call(&Call::SendState(state)),
        _ => Vec::new(),
    }
}

fn envelope(who: Who, kind: &str, data: Value, epoch: Option<u64>) -> Value {
    let mut frame = json!({ "type": kind, "clientId": who.id(), "data": data, "timestamp": 1, "protocol_version": 1 });
    if let Some(epoch) = epoch {
        frame["epoch"] = epoch.into();
    }
    frame
}

fn coordinate(who: Who, direction: &str) -> Value {
    envelope(who, "coordinate_sync_direction", json!({ "preferredDirection": direction, "reason": "user" }), None)
}

/// Numbers a frame that carries a state. The relay forwards members that it does not know unchanged.
fn mark(frame: &mut Value, repeated: bool) {
    if frame["type"] == "state_update" {
        frame["frame"] = FRAMES.fetch_add(1, Ordering::Relaxed).into();
        frame["repeated"] = repeated.into();
    }
}

/// The facts about a frame that carries a state. `epochs`: its reader is shown, or its writer has written, an epoch.
fn state_of(frame: &Value, epochs: bool) -> Option<StateFrame> {
    let (author, step) = author_and_step(&frame["data"])?;
    let epoch = frame["epoch"].as_u64().filter(|_| epochs);
    let repeated = frame["repeated"] == true;
    Some(StateFrame { frame: frame["frame"].as_u64()?, author, step, repeated, epoch })
}

fn author_and_step(data: &Value) -> Option<(Who, u64)> {
    Some((Who::parse(data["author"].as_str()?)?, data["step"].as_u64()?))
}
