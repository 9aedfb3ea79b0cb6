//! A client without its socket: what its user can do, and what it does by itself. A client of the two old generations
//! is the script that the other tests use; a client with the handshake is as docs/protocol.md describes it.

use serde_json::{Value, json};

use gitorial_relay::session::Role;

use super::old_script::{Call, Generation, Phase, Script};

/// A client.
#[derive(Debug)]
pub struct Client {
    /// `None`: it does the handshake.
    pub generation: Option<Generation>,
    pub name: String,
    /// The number of its open socket.
    pub socket: Option<usize>,
    /// It changed its own phase silently.
    silent: bool,
    /// The last client that offered, requested or got control, for its answers.
    named: Option<String>,
    /// How many states it has made.
    steps: u64,
    mind: Mind,
}

#[derive(Debug)]
enum Mind {
    Old(Script),
    Modern(Modern),
}

/// A client with the handshake. It believes only the relay.
#[derive(Debug, Default)]
struct Modern {
    phase: Phase,
    /// The last epoch that it was told.
    epoch: u64,
    token: Option<String>,
    /// The relay has answered its handshake.
    entered: bool,
    state: Option<Value>,
}

impl Client {
    pub fn new(generation: Option<Generation>, number: usize) -> Self {
        let name = format!("client_{number}");
        let mind = match generation {
            Some(generation) => Mind::Old(Script::new(generation, &name)),
            None => Mind::Modern(Modern::default()),
        };
        Self { generation, name, socket: None, silent: false, named: None, steps: 0, mind }
    }

    pub fn phase(&self) -> Phase {
        match &self.mind {
            Mind::Old(script) => script.phase,
            Mind::Modern(modern) => modern.phase,
        }
    }

    /// The id and the token in the address of its next socket.
    pub fn query(&self) -> (Option<String>, Option<String>) {
        match &self.mind {
            Mind::Old(_) => (None, None),
            Mind::Modern(modern) => (Some(self.name.clone()), modern.token.clone()),
        }
    }

    /// Its socket opens. Returns the frames that it sends.
    pub fn opened(&mut self, socket: usize) -> Vec<Value> {
        self.socket = Some(socket);
        match &mut self.mind {
            Mind::Old(script) => {
                script.opened();
                if matches!(script.phase, Phase::Pull | Phase::Push) {
                    // Its call has failed with the old socket.
                    script.phase = Phase::Idle;
                }
                Vec::new()
            }
            Mind::Modern(modern) => {
                (modern.phase, modern.epoch, modern.entered) = (Phase::Idle, 0, false);
                vec![json!({ "type": "protocol_handshake", "protocol_version": 1 })]
            }
        }
    }

    /// Does one of the acts that its user can do now. Returns the frames that it sends.
    pub fn act(&mut self, choice: u8) -> Vec<Value> {
        let named = json!({ "fromClientId": self.named });
        match choice % 8 {
            0 => vec![self.frame("cursor_moved", json!({}))],
            1 => vec![self.frame("request_control", json!({ "requestingClientId": self.name }))],
            2 => vec![self.frame("decline_control", named)],
            _ if self.generation.is_none() => self.modern_act(choice, named),
            _ => self.old_act(choice % 8, named),
        }
    }

    fn modern_act(&mut self, choice: u8, named: Value) -> Vec<Value> {
        let coordinate = |direction: &str| ("coordinate_sync_direction", json!({ "preferredDirection": direction }));
        let (kind, data) = match (self.phase(), choice % 8) {
            (_, 3) => coordinate("ACTIVE"),
            (_, 4) => coordinate("PASSIVE"),
            (_, 5) => ("accept_control", named),
            (Phase::Active, 6) => {
                if let Mind::Modern(modern) = &mut self.mind {
                    // It follows no controller now, and calls that PASSIVE.
                    modern.phase = Phase::Passive;
                }
                ("release_control", json!({}))
            }
            _ if choice < 128 => ("offer_control", json!({})),
            _ => return self.send_state(),
        };
        vec![self.frame(kind, data)]
    }

    fn old_act(&mut self, choice: u8, named: Value) -> Vec<Value> {
        let Mind::Old(script) = &mut self.mind else { return Vec::new() };
        match (script.phase, choice) {
            (Phase::Idle, 3 | 4) => script.call(&Call::Pull),
            (Phase::Idle, _) => script.call(&Call::Push),
            (Phase::Active, 3 | 4) => self.send_state(),
            (Phase::Active, 5) => script.call(&Call::Offer),
            (Phase::Active, 6) => {
                self.silent = self.generation == Some(Generation::First);
                script.call(&Call::Release)
            }
            (Phase::Active, _) => vec![self.frame("accept_control", named)],
            (Phase::Passive, 3) if self.generation == Some(Generation::First) => {
                self.silent = true;
                script.call(&Call::Take)
            }
            (Phase::Passive, _) => {
                script.offer.clone_from(&self.named);
                script.call(&Call::Accept)
            }
            (Phase::Pull | Phase::Push | Phase::Disconnected, _) => Vec::new(),
        }
    }

    /// Sends a state that nobody has sent before.
    pub fn send_state(&mut self) -> Vec<Value> {
        self.steps += 1;
        let state = json!({ "by": self.name, "step": self.steps });
        match &mut self.mind {
            Mind::Old(script) => script.call(&Call::SendState(state)),
            Mind::Modern(modern) => {
                modern.state = Some(state.clone());
                vec![self.frame("state_update", state)]
            }
        }
    }

    /// Handles a frame. Returns its answers.
    pub fn hear(&mut self, text: &str) -> Vec<Value> {
        let frame: Value = serde_json::from_str(text).unwrap();
        let (kind, was) = (frame["type"].as_str().unwrap_or_default().to_owned(), self.phase());
        let drives = kind == "role_changed" && frame["data"]["role"] == "active";
        if drives || matches!(kind.as_str(), "accept_control" | "offer_control" | "request_control") {
            self.named = frame["clientId"].as_str().map(str::to_owned);
        }
        let answers = match &mut self.mind {
            Mind::Old(script) => {
                let answers = script.on_text(text);
                // An answer is for all if its sender has become the controller while the answer was on its way.
                script.violations.retain(|violation| !violation.starts_with("an answer to somebody else"));
                assert!(script.violations.is_empty(), "{}: {:?}", self.name, script.violations);
                answers
            }
            Mind::Modern(modern) => {
                let repeats = modern.hear(&kind, &frame);
                let state = modern.state.clone().filter(|_| repeats);
                state.map(|state| self.frame("state_update", state)).into_iter().collect()
            }
        };
        self.silent &= self.phase() == was && kind != "assign_sync_direction";
        answers
    }

    /// Whether its belief agrees with the document.
    pub fn knows(&self, role: Role) -> bool {
        match (role, self.phase()) {
            (Role::Active, Phase::Active) | (Role::Passive, Phase::Passive) | (Role::Connected, Phase::Idle) => true,
            // It released silently.
            (Role::Active, Phase::Passive) => self.silent,
            // The first generation cannot be sent back to idle, and a client with the handshake calls it PASSIVE.
            (Role::Connected, Phase::Passive) => self.generation != Some(Generation::Second),
            _ => false,
        }
    }

    fn frame(&self, kind: &str, data: Value) -> Value {
        let mut frame = json!({ "type": kind, "clientId": self.name, "data": data });
        if let Mind::Modern(Modern { epoch: epoch @ 1.., .. }) = self.mind {
            frame["epoch"] = epoch.into();
        }
        frame
    }
}

impl Modern {
    /// Handles a frame. Returns `true` if it sends its state now.
    fn hear(&mut self, kind: &str, frame: &Value) -> bool {
        self.epoch = self.epoch.max(frame["epoch"].as_u64().unwrap_or(0));
        let active = |role: &Value| role == "active" || role == "ACTIVE";
        match kind {
            "protocol_ack" => {
                self.entered = true;
                self.token = frame["resume"].as_str().map(str::to_owned);
                self.phase = match frame["role"].as_str() {
                    Some("active") => Phase::Active,
                    Some("passive") => Phase::Passive,
                    _ => Phase::Idle,
                };
                // A controller that is back repeats its last state.
                return self.phase == Phase::Active;
            }
            "assign_sync_direction" if self.entered => {
                self.phase = if active(&frame["data"]["assignedDirection"]) { Phase::Active } else { Phase::Passive };
            }
            "release_control" if self.phase == Phase::Passive => self.phase = Phase::Idle,
            "state_update" => self.state = Some(frame["data"].clone()),
            "request_sync" => return true,
            _ => {}
        }
        false
    }
}
