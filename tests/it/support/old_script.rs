//! How existing clients react to frames: docs/protocol.md, "What old clients do", as a pure function.

use serde_json::{Value, json};

/// The two kinds of existing clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// Releases and takes silently, and keeps its phase over a reconnect.
    First,
    /// Announces its acts, asks for the session on every open, and is idle after a reconnect.
    Second,
}

/// The phase that a client believes to be in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// No role.
    #[default]
    Idle,
    /// It waits for ACTIVE.
    Pull,
    /// It waits for PASSIVE.
    Push,
    /// It has control.
    Active,
    /// It follows.
    Passive,
    /// Its user has called `disconnect()`. The first generation stays in this phase, even when it comes back by itself.
    Disconnected,
}

/// One call of the client's API.
#[derive(Clone, Debug)]
pub enum Call {
    /// `pullStateFromPeer()`
    Pull,
    /// `pushStateToPeer()`
    Push,
    /// `sendTutorialState()`
    SendState(Value),
    /// `requestTutorialState()`
    RequestState,
    /// `offerControlToPeer()`
    Offer,
    /// `accept()` of the event of an offer.
    Accept,
    /// `decline()` of the event of an offer.
    Decline,
    /// `acceptControlTransfer()` outside an offer.
    Take,
    /// `releaseControl()`
    Release,
    /// `disconnect()`. Until its socket is closed it still handles frames, and 2 s later it comes back.
    Disconnect,
}

/// The client, without its socket.
#[derive(Debug)]
pub struct Script {
    generation: Generation,
    id: String,
    /// The phase that it believes to be in.
    pub phase: Phase,
    /// The last state it sent or received.
    pub state: Option<Value>,
    /// The client whose offer it could accept.
    pub offer: Option<String>,
    /// The sender of the last frame of a controller.
    pub driver: Option<String>,
    /// It has asked for a state.
    asked: bool,
    /// It has no socket to write to: `disconnect()` was called, and the socket is not closed yet.
    pub closing: bool,
    /// The forbidden things that the relay did to it.
    pub violations: Vec<String>,
    /// The codes of the refusals that no test has expected yet.
    pub refusals: Vec<String>,
}

impl Script {
    /// A client that has never been connected.
    pub fn new(generation: Generation, id: &str) -> Self {
        Self {
            generation,
            id: id.to_owned(),
            phase: Phase::Idle,
            state: None,
            offer: None,
            driver: None,
            asked: false,
            closing: false,
            violations: Vec::new(),
            refusals: Vec::new(),
        }
    }

    /// Its socket is open again.
    pub fn opened(&mut self) {
        (self.offer, self.closing) = (None, false);
        if self.generation == Generation::Second {
            self.phase = Phase::Idle;
        }
    }

    /// Handles a text frame. Returns its answers.
    pub fn on_text(&mut self, text: &str) -> Vec<Value> {
        match serde_json::from_str::<Value>(text) {
            Ok(frame) if frame["type"].is_string() => {
                let answers = self.on_frame(&frame);
                if self.closing { self.fail_to_answer(&answers, text) } else { answers }
            }
            _ => {
                self.violations.push(format!("not a frame: {text}"));
                Vec::new()
            }
        }
    }

    fn on_frame(&mut self, frame: &Value) -> Vec<Value> {
        self.judge(frame);
        let sender = frame["clientId"].as_str().unwrap_or_default().to_owned();
        match frame["type"].as_str().unwrap_or_default() {
            "assign_sync_direction" => return self.on_assign(frame["data"]["assignedDirection"] == "ACTIVE"),
            "confirm_transfer" if self.second() || self.phase == Phase::Passive => return self.activate(),
            "accept_control" => {
                if self.phase == Phase::Active {
                    self.phase = Phase::Passive;
                }
                self.driver = Some(sender.clone());
                return vec![self.frame("confirm_transfer", json!({ "toClientId": sender, "timestamp": 1 }))];
            }
            "release_control" if self.second() && self.phase == Phase::Passive => self.phase = Phase::Idle,
            "offer_control" => {
                self.driver = Some(sender.clone());
                self.offer = Some(sender);
            }
            "state_update" => {
                self.state = Some(frame["data"].clone());
                if frame["answerTo"].is_null() {
                    self.driver = Some(sender);
                }
            }
            "request_sync" => return self.answer(&frame["clientId"]),
            _ => {}
        }
        Vec::new()
    }

    /// Without a socket every answer throws, inside the socket's callback. The second generation reports it to its user;
    /// a Node process of the first ends, unless its user listens for errors.
    fn fail_to_answer(&mut self, answers: &[Value], text: &str) -> Vec<Value> {
        if !answers.is_empty() && !self.second() {
            self.violations.push(format!("it died of {text}"));
        }
        Vec::new()
    }

    fn on_assign(&mut self, active: bool) -> Vec<Value> {
        match (active, self.phase) {
            (true, Phase::Idle | Phase::Pull) => self.activate(),
            (true, _) if self.second() => self.activate(),
            (false, Phase::Idle | Phase::Push) => self.follow(),
            (false, _) if self.second() => self.follow(),
            _ => Vec::new(),
        }
    }

    fn follow(&mut self) -> Vec<Value> {
        self.phase = Phase::Passive;
        Vec::new()
    }

    /// It has control now. If it asked for it, it then asks for the state.
    fn activate(&mut self) -> Vec<Value> {
        let asked = std::mem::replace(&mut self.phase, Phase::Active) == Phase::Pull;
        if asked { vec![self.ask()] } else { Vec::new() }
    }

    fn ask(&mut self) -> Value {
        self.asked = true;
        self.frame("request_sync", json!({}))
    }

    fn answer(&self, asker: &Value) -> Vec<Value> {
        let Some(state) = &self.state else { return Vec::new() };
        let mut frame = self.frame("state_update", state.clone());
        // Unknown members are forwarded: by this one a receiver recognises an answer that is not meant for it.
        // An ACTIVE client's answer is for all, and so is one that the relay asked for. A client that waits for ACTIVE
        // may be it by the time its answer arrives.
        if !matches!(self.phase, Phase::Active | Phase::Pull) && asker != "relay-server" {
            frame["answerTo"] = asker.clone();
        }
        vec![frame]
    }

    /// Its user makes this call. Returns the frames that it sends.
    pub fn call(&mut self, call: &Call) -> Vec<Value> {
        match call {
            Call::Pull => self.coordinate(Phase::Pull, "ACTIVE"),
            Call::Push => self.coordinate(Phase::Push, "PASSIVE"),
            // It throws, and its user's process lives on.
            Call::SendState(_) if self.phase != Phase::Active => Vec::new(),
            Call::SendState(state) => {
                self.state = Some(state.clone());
                vec![self.frame("state_update", state.clone())]
            }
            Call::RequestState => {
                self.only_in(Phase::Active, "requestTutorialState()");
                vec![self.ask()]
            }
            Call::Offer => {
                self.only_in(Phase::Active, "offerControlToPeer()");
                let about =
                    json!({ "transferTimestamp": 1, "fromClientId": self.id, "toClientId": "", "stateChecksum": "" });
                vec![self.frame("offer_control", json!({ "tutorialState": self.state, "metadata": about }))]
            }
            Call::Accept => self.accept(self.offer.clone()),
            Call::Decline => {
                let offer = self.offer.take();
                vec![self.frame("decline_control", json!({ "fromClientId": offer, "timestamp": 1 }))]
            }
            Call::Take if self.second() => self.accept(self.driver.clone()),
            Call::Take => {
                self.only_in(Phase::Passive, "acceptControlTransfer()");
                self.phase = Phase::Active;
                Vec::new()
            }
            Call::Release => self.release(),
            Call::Disconnect => {
                (self.phase, self.closing) = (Phase::Disconnected, true);
                Vec::new()
            }
        }
    }

    fn coordinate(&mut self, phase: Phase, direction: &str) -> Vec<Value> {
        self.only_in(Phase::Idle, "a choice of direction");
        self.phase = phase;
        vec![self.frame("coordinate_sync_direction", json!({ "preferredDirection": direction, "reason": "user" }))]
    }

    fn accept(&mut self, from: Option<String>) -> Vec<Value> {
        self.only_in(Phase::Passive, "accept()");
        self.offer = None;
        self.phase = Phase::Active;
        vec![self.frame("accept_control", json!({ "fromClientId": from, "timestamp": 1 }))]
    }

    fn release(&mut self) -> Vec<Value> {
        self.only_in(Phase::Active, "releaseControl()");
        if self.second() {
            self.phase = Phase::Idle;
            return vec![self.frame("release_control", json!({ "timestamp": 1 }))];
        }
        self.phase = Phase::Passive;
        Vec::new()
    }

    fn only_in(&mut self, phase: Phase, call: &str) {
        if self.phase != phase {
            self.violations.push(format!("the test calls {call} in {:?}", self.phase));
        }
    }

    fn second(&self) -> bool {
        self.generation == Generation::Second
    }

    fn frame(&self, kind: &str, data: Value) -> Value {
        json!({ "type": kind, "clientId": self.id, "data": data, "timestamp": 1, "protocol_version": 1 })
    }

    /// Records frames that must never reach an old client.
    fn judge(&mut self, frame: &Value) {
        let sender = frame["clientId"].as_str().unwrap_or_default();
        let from_a_client = sender.starts_with("client_") && sender != self.id;
        let fault = match frame["type"].as_str().unwrap_or_default() {
            "error" => "an error kills a Node process",
            "confirm_transfer" if from_a_client || !frame["data"]["toClientId"].is_null() => {
                "a client's acknowledgement was passed on"
            }
            "accept_control" if sender == "relay-server" => "control taken by nobody",
            // An answer is for all if its sender has become the controller by the time it arrives; it then
            // repeats the controller's last state.
            "state_update"
                if !frame["answerTo"].is_null() && !self.asked && self.state.as_ref() != Some(&frame["data"]) =>
            {
                "an answer to somebody else"
            }
            "rejected" => {
                self.refusals.push(frame["data"]["code"].as_str().unwrap_or("no code").to_owned());
                return;
            }
            _ => return,
        };
        self.violations.push(format!("{fault}: {frame}"));
    }
}

#[cfg(test)]
mod tests {
    use super::Phase::{Active, Idle, Passive, Pull, Push};
    use super::*;

    const PHASES: [Phase; 5] = [Idle, Pull, Push, Active, Passive];

    fn after(generation: Generation, phase: Phase, frame: &Value) -> (Phase, Vec<Value>) {
        let mut script = Script::new(generation, "client_me");
        script.phase = phase;
        script.state = Some(json!({ "step": 1 }));
        let answers = script.on_text(&frame.to_string());
        assert!(script.violations.is_empty(), "{:?}", script.violations);
        (script.phase, answers)
    }

    fn phases_after(generation: Generation, frame: &Value) -> [Phase; 5] {
        PHASES.map(|phase| after(generation, phase, frame).0)
    }

    fn frame(kind: &str, data: Value) -> Value {
        json!({ "type": kind, "clientId": "client_peer", "data": data })
    }

    #[test]
    fn the_first_generation_changes_phase_as_the_table_says() {
        let after = |kind, data| phases_after(Generation::First, &frame(kind, data));
        assert_eq!(
            after("assign_sync_direction", json!({ "assignedDirection": "ACTIVE" })),
            [Active, Active, Push, Active, Passive]
        );
        assert_eq!(
            after("assign_sync_direction", json!({ "assignedDirection": "PASSIVE" })),
            [Passive, Pull, Passive, Active, Passive]
        );
        assert_eq!(after("accept_control", json!({})), [Idle, Pull, Push, Passive, Passive]);
        let confirm = json!({ "type": "confirm_transfer", "clientId": "relay-server", "data": { "reason": "r" } });
        assert_eq!(phases_after(Generation::First, &confirm), [Idle, Pull, Push, Active, Active]);
        for kind in
            ["release_control", "offer_control", "request_control", "state_update", "request_sync", "role_changed", "x"]
        {
            assert_eq!(after(kind, json!({})), PHASES, "{kind}");
        }
    }

    #[test]
    fn the_second_generation_changes_phase_as_the_table_says() {
        let after = |kind, data| phases_after(Generation::Second, &frame(kind, data));
        assert_eq!(after("assign_sync_direction", json!({ "assignedDirection": "ACTIVE" })), [Active; 5]);
        assert_eq!(after("assign_sync_direction", json!({ "assignedDirection": "PASSIVE" })), [Passive; 5]);
        assert_eq!(after("accept_control", json!({})), [Idle, Pull, Push, Passive, Passive]);
        let confirm = json!({ "type": "confirm_transfer", "clientId": "relay-server", "data": { "reason": "r" } });
        assert_eq!(phases_after(Generation::Second, &confirm), [Active; 5]);
        assert_eq!(after("release_control", json!({})), [Idle, Pull, Push, Active, Idle]);
        for kind in ["offer_control", "request_control", "state_update", "request_sync", "decline_control", "x"] {
            assert_eq!(after(kind, json!({})), PHASES, "{kind}");
        }
    }

    #[test]
    fn both_generations_acknowledge_and_answer_in_every_phase() {
        for generation in [Generation::First, Generation::Second] {
            for phase in PHASES {
                let answer = &after(generation, phase, &frame("accept_control", json!({}))).1[0];
                assert_eq!((&answer["type"], &answer["clientId"]), (&json!("confirm_transfer"), &json!("client_me")));
                let answer = &after(generation, phase, &frame("request_sync", json!({}))).1[0];
                assert_eq!((&answer["type"], &answer["data"]), (&json!("state_update"), &json!({ "step": 1 })));
            }
        }
    }

    #[test]
    fn only_the_first_generation_dies_answering_without_a_socket() {
        for (generation, deaths) in [(Generation::First, 2), (Generation::Second, 0)] {
            let mut script = Script::new(generation, "client_me");
            script.state = Some(json!({ "step": 1 }));
            script.call(&Call::Disconnect);
            for kind in ["accept_control", "request_sync", "state_update", "release_control", "client_disconnected"] {
                assert_eq!(script.on_text(&frame(kind, json!({})).to_string()), Vec::<Value>::new());
            }
            assert_eq!(script.violations.len(), deaths, "{:?}", script.violations);
            script.opened();
            assert_eq!(script.on_text(&frame("accept_control", json!({})).to_string()).len(), 1);
        }
    }

    #[test]
    fn frames_that_must_never_reach_an_old_client_are_noticed() {
        let faults = [
            "no json".to_owned(),
            frame("error", json!({})).to_string(),
            frame("confirm_transfer", json!({ "toClientId": "client_me" })).to_string(),
            json!({ "type": "accept_control", "clientId": "relay-server", "data": {} }).to_string(),
            json!({ "type": "state_update", "clientId": "client_peer", "data": {}, "answerTo": "client_x" })
                .to_string(),
        ];
        for fault in faults {
            let mut script = Script::new(Generation::First, "client_me");
            script.on_text(&fault);
            assert_eq!(script.violations.len(), 1, "{fault}");
        }
    }
}
