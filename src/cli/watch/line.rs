//! The output of a watcher: an event, as a line for people or as JSON for programs. A state is never shown, only its
//! size and the step that it names.

use std::time::{Duration, SystemTime};

use gitorial_relay::protocol::{Frame, FrameType};
use serde::Deserialize;
use serde_json::{Map, Number, Value, json};

use crate::cli::plain;

/// The members of a state that may hold the step of a tutorial, in any letter case, in this order.
const STEPS: [&str; 4] = ["stepindex", "currentstepindex", "currentstep", "step"];

/// The members whose `index` may hold the step.
const STEP_HOLDERS: [&str; 2] = ["stepcontent", "step"];

/// An event in the session.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    /// The watcher has joined the session.
    Watching {
        /// The watcher's id in the session.
        client: String,
        /// Whether the watcher resumed its place.
        resumed: bool,
    },
    /// A client joined.
    Joined { client: String },
    /// A client left.
    Left { client: String },
    /// A client has a new role.
    Role { client: String, role: &'static str },
    /// A client sent a frame about control.
    Control { client: String, action: &'static str },
    /// A state was forwarded.
    State { client: String, bytes: usize, step: Option<Number> },
    /// The watcher's own socket broke. The watcher comes back after a pause.
    Lost { why: String, pause: Duration },
    /// The session is over.
    Ended { why: &'static str },
    /// The watcher was stopped.
    Stopped,
}

/// The parts of a frame that the relay does not read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Rest {
    /// The number of a forwarded frame; the relay's own frames have none.
    seq: Option<u64>,
    data: Role,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Role {
    role: String,
    #[serde(rename = "assignedDirection")]
    assigned: String,
}

impl Event {
    /// Returns the event of a frame for a watcher called `me`; `None` if the frame is not shown.
    pub(super) fn of(frame: &Frame, me: &str) -> Option<Self> {
        let client = frame.client_id.clone().unwrap_or_else(|| "somebody".to_owned());
        let control = |action| Some(Self::Control { client: client.clone(), action });
        match frame.kind {
            FrameType::ClientConnected => Some(Self::Joined { client }),
            FrameType::ClientDisconnected => Some(Self::Left { client }),
            FrameType::RoleChanged => {
                let Rest { seq, data } = serde_json::from_slice(&frame.text).ok()?;
                // A client's own announcement of a role has no effect.
                let role = role(&data.role).filter(|_| seq.is_none())?;
                Some(Self::Role { client, role })
            }
            FrameType::AssignSyncDirection => {
                let Rest { data, .. } = serde_json::from_slice(&frame.text).ok()?;
                Some(Self::Role { client: me.to_owned(), role: role(&data.assigned)? })
            }
            FrameType::StateUpdate => {
                let data = serde_json::from_slice(frame.data()).unwrap_or_default();
                Some(Self::State { client, bytes: frame.data().len(), step: step(&data) })
            }
            FrameType::RequestControl => control("asks for control"),
            FrameType::OfferControl => control("offers control"),
            FrameType::AcceptControl => control("accepts control"),
            FrameType::DeclineControl => control("declines"),
            FrameType::ReleaseControl => control("gives control up"),
            FrameType::ProtocolHandshake
            | FrameType::ProtocolAck
            | FrameType::ProtocolPing
            | FrameType::ProtocolPong
            | FrameType::CoordinateSyncDirection
            | FrameType::RequestSync
            | FrameType::ConfirmTransfer
            | FrameType::Rejected
            | FrameType::Error
            | FrameType::Unknown => None,
        }
    }

    /// The line for people.
    pub(super) fn text(&self) -> String {
        let what = match self {
            Self::Watching { client, resumed: false } => format!("watching as {}", plain(client)),
            Self::Watching { client, resumed: true } => format!("watching again as {}", plain(client)),
            Self::Joined { client } => format!("{} joined", plain(client)),
            Self::Left { client } => format!("{} left", plain(client)),
            Self::Role { client, role } => format!("{} is {role}", plain(client)),
            Self::Control { client, action } => format!("{} {action}", plain(client)),
            Self::State { client, bytes, step: Some(step) } => {
                format!("{} is at step {step} ({bytes} bytes)", plain(client))
            }
            Self::State { client, bytes, step: None } => format!("{} sent a state ({bytes} bytes)", plain(client)),
            Self::Lost { why, pause } => {
                format!("connection lost ({}), coming back in {:.1} s", plain(why), pause.as_secs_f64())
            }
            Self::Ended { why } => format!("the session is over: {why}"),
            Self::Stopped => "stopped watching".to_owned(),
        };
        format!("{} {what}", now())
    }

    /// The line for programs.
    pub(super) fn json(&self) -> String {
        let mut line = match self {
            Self::Watching { client, resumed } => json!({ "event": "watching", "client": client, "resumed": resumed }),
            Self::Joined { client } => json!({ "event": "joined", "client": client }),
            Self::Left { client } => json!({ "event": "left", "client": client }),
            Self::Role { client, role } => json!({ "event": "role", "client": client, "role": role }),
            Self::Control { client, action } => json!({ "event": "control", "client": client, "action": action }),
            Self::State { client, bytes, step } => {
                json!({ "event": "state", "client": client, "bytes": bytes, "step": step })
            }
            Self::Lost { why, pause } => json!({ "event": "lost", "why": why, "pauseMs": pause.as_millis() as u64 }),
            Self::Ended { why } => json!({ "event": "ended", "why": why }),
            Self::Stopped => json!({ "event": "stopped" }),
        };
        line["at"] = now().into();
        line.to_string()
    }
}

fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// A role by its name on the wire.
fn role(name: &str) -> Option<&'static str> {
    ["connected", "active", "passive"].into_iter().find(|role| role.eq_ignore_ascii_case(name))
}

/// The step that a state names in a known way, if it names one.
fn step(state: &Value) -> Option<Number> {
    let state = state.as_object()?;
    let inside = |controller: &&str| number(member(state, controller)?.as_object()?, "index");
    STEPS.iter().find_map(|name| number(state, name)).or_else(|| STEP_HOLDERS.iter().find_map(inside))
}

fn number(object: &Map<String, Value>, name: &str) -> Option<Number> {
    member(object, name)?.as_number().cloned()
}

fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Option<Event> {
        Event::of(&Frame::parse(text.to_owned().into()).unwrap(), "me")
    }

    fn line(text: &str) -> String {
        event(text).map(|event| event.text().split_once(' ').unwrap().1.to_owned()).unwrap_or_default()
    }

    #[test]
    fn each_event_is_one_line() {
        let cases = [
            (r#"{"type":"client_connected","clientId":"a"}"#, "a joined"),
            (r#"{"type":"client_disconnected","clientId":"a","data":{}}"#, "a left"),
            (r#"{"type":"role_changed","clientId":"a","data":{"role":"active"},"epoch":1}"#, "a is active"),
            (
                r#"{"type":"assign_sync_direction","clientId":"relay-server","data":{"assignedDirection":"PASSIVE"}}"#,
                "me is passive",
            ),
            (r#"{"type":"state_update","clientId":"a","data":{"step":4}}"#, "a is at step 4 (10 bytes)"),
            (r#"{"type":"state_update","clientId":"a","data":[1]}"#, "a sent a state (3 bytes)"),
            (r#"{"type":"state_update"}"#, "somebody sent a state (0 bytes)"),
            (r#"{"type":"release_control","clientId":"a"}"#, "a gives control up"),
            (r#"{"type":"client_connected","clientId":"a\u001b[2J\nb"}"#, "a\\u{1b}[2J\\u{a}b joined"),
        ];
        for (frame, expected) in cases {
            assert_eq!(line(frame), expected, "{frame}");
        }
    }

    #[test]
    fn a_frame_that_changes_nothing_is_no_event() {
        for frame in [
            r#"{"type":"role_changed","clientId":"a","data":{"role":"active"},"seq":3}"#,
            r#"{"type":"role_changed","clientId":"a","data":{"role":"king"}}"#,
            r#"{"type":"request_sync","clientId":"a"}"#,
            r#"{"type":"cursor_moved","clientId":"a"}"#,
        ] {
            assert_eq!(event(frame), None, "{frame}");
        }
    }

    #[test]
    fn the_step_is_found_where_tutorials_put_it() {
        let found = |text: &str| step(&serde_json::from_str(text).unwrap()).map(|step| step.to_string());
        for (state, expected) in [
            (r#"{"stepIndex":2}"#, Some("2")),
            (r#"{"currentStep":3,"step":"x"}"#, Some("3")),
            (r#"{"stepContent":{"id":"s","index":5},"totalSteps":9}"#, Some("5")),
            (r#"{"step":{"index":7}}"#, Some("7")),
            (r#"{"totalSteps":9,"index":1}"#, None),
            (r#"{"step":"four"}"#, None),
            ("[1]", None),
        ] {
            assert_eq!(found(state).as_deref(), expected, "{state}");
        }
    }

    #[test]
    fn json_has_the_same_events_and_no_state() {
        let event = event(r#"{"type":"state_update","clientId":"a","data":{"step":4,"secret":"hunter2"}}"#).unwrap();
        let line: Value = serde_json::from_str(&event.json()).unwrap();
        assert_eq!(
            (line["event"].as_str(), line["step"].as_u64(), line["bytes"].as_u64()),
            (Some("state"), Some(4), Some(29))
        );
        assert!(line["at"].is_string() && !line.to_string().contains("hunter2"));
    }
}
