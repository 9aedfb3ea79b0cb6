//! The kinds of values that settings have, each with its own reading. What is wrong with a text is said so that it goes
//! on after the text itself: `"abc" is not …`.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::session::Strategy;

/// Where the ops endpoints and the API live: no WebSockets there.
const RESERVED_PATHS: [&str; 4] = ["/api", "/healthz", "/readyz", "/metrics"];

/// The schemes of Redis addresses.
const REDIS_SCHEMES: [&str; 6] =
    ["redis", "rediss", "redis-sentinel", "rediss-sentinel", "redis-cluster", "rediss-cluster"];

/// The shortest admin token: below it, guessing pays.
const MIN_TOKEN_BYTES: usize = 16;

/// The longest node name.
const MAX_NODE_NAME_BYTES: usize = 64;

/// Who may list all sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SessionListing {
    /// Nobody.
    #[default]
    Off,
    /// Who has the admin token.
    Admin,
    /// Anybody.
    Public,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// A text that must not be seen in logs: its `Debug` is two dots.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for comparing.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() < MIN_TOKEN_BYTES || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("must be {MIN_TOKEN_BYTES} or more printable ASCII characters without spaces"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The address of a Redis, with its password: `Debug` shows the scheme alone.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// The address itself, for the client library. Never for logs or errors.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The address for people: whatever stands before an `@` or after a `?` may be a password, and is left out.
    #[must_use]
    pub fn masked(&self) -> String {
        let (scheme, rest) = self.0.split_once("://").unwrap_or_default();
        let (user, host) = rest.rsplit_once('@').map_or(("", rest), |(_, host)| ("***@", host));
        let (host, query) = host.split_once('?').map_or((host, ""), |(host, _)| (host, "?***"));
        format!("{scheme}://{user}{host}{query}")
    }

    /// What stands before `://`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://..", self.scheme())
    }
}

impl FromStr for RedisUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            Some((scheme, rest)) if REDIS_SCHEMES.contains(&scheme) && !rest.is_empty() => Ok(Self(text.to_owned())),
            Some((scheme, _)) if REDIS_SCHEMES.contains(&scheme) => Err("names no host after ://".to_owned()),
            Some(_) | None => Err(format!("must begin with one of {}://", REDIS_SCHEMES.join("://, "))),
        }
    }
}

/// Where an OpenTelemetry collector takes traces by HTTP: `http://`, a host and a port, as it stands beside the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpEndpoint(String);

impl OtlpEndpoint {
    /// Its host and port.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.0
    }

    /// The address that spans are sent to.
    #[must_use]
    pub fn traces(&self) -> String {
        format!("http://{}/v1/traces", self.0)
    }
}

impl FromStr for OtlpEndpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "is no address of a collector such as http://127.0.0.1:4318 (no TLS, no path)".to_owned();
        let authority = text.strip_prefix("http://").map(|rest| rest.trim_end_matches('/')).ok_or_else(wrong)?;
        let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
        if host.is_empty() || !host.bytes().all(plain) || port.parse::<u16>().is_err() {
            return Err(wrong());
        }
        Ok(Self(authority.to_owned()))
    }
}

/// The name of a node: letters, digits, dot, underscore and hyphen, at most 64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName(String);

impl NodeName {
    /// The host's name, with a hyphen for whatever a node's name cannot have; `node` if there is none.
    #[must_use]
    pub fn of_host() -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let fit = |letter: char| if is_node_letter(letter) { letter } else { '-' };
        let name: String = host.chars().map(fit).take(MAX_NODE_NAME_BYTES).collect();
        name.parse().unwrap_or_else(|_| Self("node".to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_NODE_NAME_BYTES || !text.chars().all(is_node_letter) {
            return Err(format!(
                "must be 1 to {MAX_NODE_NAME_BYTES} letters, digits, dots, underscores and hyphens (ASCII)"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

fn is_node_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-')
}

/// Which web origins may use the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Every one.
    Any,
    /// These, in lower case, as browsers write them.
    List(Vec<String>),
}

impl Origins {
    /// Whether pages of `origin` may use the relay.
    #[must_use]
    pub fn allow(&self, origin: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::List(list) => list.iter().any(|allowed| allowed.as_bytes().eq_ignore_ascii_case(origin)),
        }
    }
}

impl FromStr for Origins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let items: Vec<&str> = text.split(',').map(str::trim).collect();
        if items == ["*"] {
            return Ok(Self::Any);
        }
        let is_origin = |item: &&str| {
            let Some((scheme, host)) = item.split_once("://") else { return false };
            let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'?' | b'#' | b'*' | b'@');
            !scheme.is_empty() && !host.is_empty() && item.len() == item.trim().len() && host.bytes().all(plain)
        };
        match items.iter().find(|item| !is_origin(item)) {
            Some(item) => Err(format!(
                "has {item:?}, which is no origin such as https://example.org (no path, no slash at the end; * stands alone)"
            )),
            None => Ok(Self::List(items.iter().map(|item| item.to_ascii_lowercase()).collect())),
        }
    }
}

/// The paths that accept WebSockets; `/` and `/ws` are always among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WsPaths(Vec<String>);

impl WsPaths {
    /// The paths, each once.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

impl FromStr for WsPaths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut paths = vec!["/".to_owned(), "/ws".to_owned()];
        for path in text.split(',').map(str::trim) {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'~' | b'-');
            if !path.starts_with('/') || path.contains("//") || !path.bytes().all(plain) {
                return Err(format!("has {path:?}, which is no path such as /ws"));
            }
            let under = |rest: &str| rest.is_empty() || rest.starts_with('/');
            if let Some(reserved) = RESERVED_PATHS.iter().find(|own| path.strip_prefix(**own).is_some_and(under)) {
                return Err(format!("has {path:?}, but {reserved} is the relay's own; choose another"));
            }
            if !paths.iter().any(|known| known == path) {
                paths.push(path.to_owned());
            }
        }
        Ok(Self(paths))
    }
}

/// What is logged, known to be readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The filter as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A bare word that is no level would be taken for a module and mute all others: more likely a slip.
        let slip = text.split(',').find(|part| !part.contains(['=', '[']) && part.parse::<LevelFilter>().is_err());
        if slip.is_some() || EnvFilter::try_new(text).is_err() {
            return Err("is no log filter such as info or warn,gitorial_relay=debug".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is no address such as 127.0.0.1:8080 or [::]:8080".to_owned())
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "is no duration such as 500ms, 30s, 5m or 1h 30m".to_owned())
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" | "true" | "yes" | "1" => Ok(true),
        "off" | "false" | "no" | "0" => Ok(false),
        _ => Err("is neither on nor off".to_owned()),
    }
}

pub(super) fn number<const MIN: usize, const MAX: usize>(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (MIN..=MAX).contains(number));
    number.ok_or_else(|| format!("is no whole number from {MIN} to {MAX}"))
}

/// A strategy by its name, in either spelling (docs/protocol.md, "Sessions").
pub(crate) fn strategy(text: &str) -> Result<Strategy, String> {
    let reader: StrDeserializer<'_, ValueError> = text.into_deserializer();
    Strategy::deserialize(reader).map_err(|_| "is none of first_come_first_served, user_choice, deny_both".to_owned())
}
