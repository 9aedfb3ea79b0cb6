//! `session`: sessions over the HTTP API of a node (docs/protocol.md, "HTTP API").

use std::time::Duration;

use crate::config::Secret;
use clap::builder::PossibleValuesParser;
use gitorial_relay::ids::SessionId;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::address::{Address, Port};
use super::call::{Question, ask};
use super::{ToolError, plain, print};

/// The subcommands of `session`.
#[derive(clap::Subcommand)]
pub(super) enum Session {
    /// Creates a session and prints its id.
    Create(Create),
    /// Shows a session.
    Show(One),
    /// Ends a session: its clients are disconnected.
    Delete(One),
    /// Lists all sessions with their ids, if the node allows this caller to.
    List(List),
}

/// The address of the node, and the form of the output.
#[derive(clap::Args)]
pub(super) struct Asking {
    /// The address of the node; by default the one in this machine's settings.
    #[arg(long, value_name = "URL")]
    url: Option<Address>,

    /// Print JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// The arguments of `create`.
#[derive(clap::Args)]
pub(super) struct Create {
    /// Any JSON for the session's clients.
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,

    /// How long the session lives without activity, as in 30m.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires_in: Option<Duration>,

    /// How a claim is decided while another client has control.
    #[arg(long, value_name = "STRATEGY")]
    #[arg(value_parser = PossibleValuesParser::new(["first_come_first_served", "user_choice", "deny_both"]))]
    conflict_resolution: Option<String>,

    #[command(flatten)]
    asking: Asking,
}

/// The arguments for one session.
#[derive(clap::Args)]
pub(super) struct One {
    /// The id of the session.
    #[arg(value_name = "ID")]
    id: String,

    #[command(flatten)]
    asking: Asking,
}

/// The arguments of `list`.
#[derive(clap::Args)]
pub(super) struct List {
    /// The bearer token for listing. Pass it in the environment, as RELAY_ADMIN_TOKEN, so that it stays secret.
    #[arg(long, value_name = "TOKEN")]
    admin_token: Option<Secret>,

    #[command(flatten)]
    asking: Asking,
}

/// A node's description of a session.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    id: String,
    created_at: String,
    expires_at: String,
    last_activity: String,
    client_count: u64,
    active_client_id: Option<String>,
    status: String,
    metadata: Option<Box<RawValue>>,
}

/// A node's refusal.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

impl Session {
    pub(super) async fn run(self, env: &dyn Fn(&str) -> Option<String>) -> Result<(), ToolError> {
        match self {
            Self::Create(create) => create.run(env).await,
            Self::Show(one) => one.show(env).await,
            Self::Delete(one) => one.delete(env).await,
            Self::List(list) => list.run(env).await,
        }
    }
}

impl Create {
    async fn run(self, env: &dyn Fn(&str) -> Option<String>) -> Result<(), ToolError> {
        let body = self.body()?;
        let question = Question { method: Method::POST, path: "/api/sessions", body: Some(body), token: None };
        let answer = self.asking.ask(question, env).await?;
        let data: Data = read(&answer)?;
        print(if self.asking.json { &answer } else { &data.id });
        Ok(())
    }

    /// Builds the body. The metadata keep their exact text.
    fn body(&self) -> Result<String, ToolError> {
        let mut members = Vec::new();
        if let Some(metadata) = &self.metadata {
            let valid: Result<&RawValue, _> = serde_json::from_str(metadata);
            let problem =
                |error: serde_json::Error| format!("--metadata: is not valid JSON at column {}", error.column());
            members.push(format!("\"metadata\":{}", valid.map_err(|error| ToolError::Use(problem(error)))?.get()));
        }
        if let Some(expires_in) = self.expires_in {
            members.push(format!("\"expiresIn\":{}", expires_in.as_millis()));
        }
        if let Some(strategy) = &self.conflict_resolution {
            members.push(format!("\"conflictResolution\":{}", Value::from(strategy.as_str())));
        }
        Ok(format!("{{{}}}", members.join(",")))
    }
}

impl One {
    async fn show(self, env: &dyn Fn(&str) -> Option<String>) -> Result<(), ToolError> {
        let answer = self.ask(Method::GET, env).await?;
        let data: Data = read(&answer)?;
        if self.asking.json {
            // The caller knows the id, and it stays out of logs that this output may end up in.
            let mut whole: Map<String, Value> = read(&answer)?;
            whole.remove("id");
            print(&Value::from(whole).to_string());
        } else {
            print(data.table().trim_end());
        }
        Ok(())
    }

    async fn delete(self, env: &dyn Fn(&str) -> Option<String>) -> Result<(), ToolError> {
        let answer = self.ask(Method::DELETE, env).await?;
        print(if self.asking.json { &answer } else { "session deleted" });
        Ok(())
    }

    async fn ask(&self, method: Method, env: &dyn Fn(&str) -> Option<String>) -> Result<String, ToolError> {
        let path = format!("/api/sessions/{}", session_id(&self.id)?.reveal());
        self.asking.ask(Question { method, path: &path, ..Question::default() }, env).await
    }
}

impl List {
    async fn run(self, env: &dyn Fn(&str) -> Option<String>) -> Result<(), ToolError> {
        let token = match self.admin_token {
            Some(token) => Some(token),
            None => env("RELAY_ADMIN_TOKEN")
                .filter(|token| !token.is_empty())
                .map(|token| token.parse())
                .transpose()
                .map_err(|problem: String| ToolError::Use(format!("RELAY_ADMIN_TOKEN: the value {problem}")))?,
        };
        let question = Question { path: "/api/sessions", token: token.as_ref(), ..Question::default() };
        let answer = self.asking.ask(question, env).await?;
        let sessions: Vec<Data> = read(&answer)?;
        if self.asking.json {
            print(&answer);
            return Ok(());
        }
        for Data { id, client_count, active_client_id, expires_at, .. } in sessions {
            let controller = active_client_id.map_or_else(|| "-".to_owned(), |name| plain(&name));
            print(&format!("{id}  {client_count:>3} clients  expires {expires_at}  {controller}"));
        }
        Ok(())
    }
}

impl Asking {
    /// The body of a successful answer.
    async fn ask(&self, question: Question<'_>, env: &dyn Fn(&str) -> Option<String>) -> Result<String, ToolError> {
        let address = Address::resolve(self.url.clone(), Port::Clients, env)?;
        let (status, body) = ask(&address, question).await?;
        let body = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() {
            return Ok(body);
        }
        // The sentences are the relay's own, unless another server answered.
        let says = match serde_json::from_str(&body) {
            Ok(Refusal { error }) => plain(error.trim_end_matches('.')),
            Err(_) if status == StatusCode::NOT_FOUND => "no sessions API at this address".to_owned(),
            Err(_) => status.to_string(),
        };
        Err(ToolError::Refused(format!("{address}: {says}")))
    }
}

impl Data {
    fn table(&self) -> String {
        let controller = self.active_client_id.as_ref().map(|name| plain(name));
        let metadata = self.metadata.as_ref().map(|metadata| plain(metadata.get()));
        let rows = [
            ("status", self.status.clone()),
            ("clients", self.client_count.to_string()),
            ("controller", controller.unwrap_or_else(|| "nobody".to_owned())),
            ("created", self.created_at.clone()),
            ("last activity", self.last_activity.clone()),
            ("expires", self.expires_at.clone()),
            ("metadata", metadata.unwrap_or_else(|| "-".to_owned())),
        ];
        rows.iter().map(|(name, value)| format!("{name:<13}  {value}\n")).collect()
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "is not a duration like 30m".to_owned())
}

/// Parses a session id. The id is a secret, so the error does not repeat it.
pub(super) fn session_id(text: &str) -> Result<SessionId, ToolError> {
    SessionId::parse(text.trim())
        .ok_or_else(|| ToolError::Use("the argument is not a session id; `session create` prints one".to_owned()))
}

fn read<'a, T: Deserialize<'a>>(answer: &'a str) -> Result<T, ToolError> {
    serde_json::from_str(answer).map_err(|_| ToolError::Refused("the answer does not come from a relay".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(metadata: Option<&str>, expires_in: Option<u64>, strategy: Option<&str>) -> Create {
        let asking = Asking { url: None, json: false };
        Create {
            metadata: metadata.map(str::to_owned),
            expires_in: expires_in.map(Duration::from_secs),
            conflict_resolution: strategy.map(str::to_owned),
            asking,
        }
    }

    #[test]
    fn metadata_is_sent_byte_for_byte() {
        assert_eq!(create(None, None, None).body().unwrap(), "{}");
        let body = create(Some("{\"b\": 1.00}"), Some(60), Some("user_choice")).body().unwrap();
        assert_eq!(body, r#"{"metadata":{"b": 1.00},"expiresIn":60000,"conflictResolution":"user_choice"}"#);
        let error = create(Some("{\"hunter2\": }"), None, None).body().unwrap_err();
        assert!(!error.to_string().contains("hunter2") && error.to_string().contains("column 13"), "{error}");
    }

    #[test]
    fn a_wrong_id_is_not_repeated() {
        let error = session_id("0d6c36c4-9b7c").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(!error.to_string().contains("0d6c"), "{error}");
    }

    #[test]
    fn a_table_shows_neither_the_id_nor_control_characters() {
        let answer = "{\"id\":\"the-id\",\"createdAt\":\"c\",\"expiresAt\":\"e\",\"lastActivity\":\"l\",\"clientCount\":2,\
                      \"activeClientId\":\"a\\u001b[2J\",\"status\":\"active\",\"metadata\":{\"a\": 1}}";
        let table = read::<Data>(answer).unwrap().table();
        assert!(!table.contains("the-id") && !table.contains('\u{1b}'), "{table}");
        for row in ["status         active", "clients        2", "metadata       {\"a\": 1}", "expires        e"] {
            assert!(table.contains(row), "{row}: {table}");
        }
    }
}
