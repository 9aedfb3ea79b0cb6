//! The types of the settings' values, each with its parser. An error continues a sentence that begins with the text
//! itself: `"abc" is not …`.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use hyper::http::uri::Authority;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use gitorial_relay::RedisSettings;
use gitorial_relay::session::Strategy;

/// The paths of the ops endpoints and the API, which cannot accept WebSockets.
const RESERVED_PATHS: [&str; 4] = ["/api", "/healthz", "/readyz", "/metrics"];

/// The longest node name.
const MAX_NODE_NAME_BYTES: usize = 64;

/// The callers that may list all sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SessionListing {
    /// No caller.
    #[default]
    Off,
    /// Callers with the admin token.
    Admin,
    /// All callers.
    Public,
}

/// The format of all lines of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object on each line, for collectors.
    Json,
}

/// The address of a Redis, with its password. The `Debug` form shows the scheme only.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RedisUrl(String);

impl RedisUrl {
    /// The address itself, for the client library. It must not appear in logs or errors.
    #[must_use]
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// The address for people, without the text before an `@` and after a `?`, which may be a password.
    #[must_use]
    pub(crate) fn masked(&self) -> String {
        let (scheme, rest) = self.0.split_once("://").unwrap_or_default();
        let (user, host) = rest.rsplit_once('@').map_or(("", rest), |(_, host)| ("***@", host));
        let (host, query) = host.split_once('?').map_or((host, ""), |(host, _)| (host, "?***"));
        format!("{scheme}://{user}{host}{query}")
    }

    /// The text before `://`.
    #[must_use]
    pub(crate) fn scheme(&self) -> &str {
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
            Some((scheme, rest)) if RedisSettings::SCHEMES.contains(&scheme) && !rest.is_empty() => {
                Ok(Self(text.to_owned()))
            }
            Some((scheme, _)) if RedisSettings::SCHEMES.contains(&scheme) => Err("has no host after ://".to_owned()),
            Some(_) | None => Err(format!("must begin with one of {}://", RedisSettings::SCHEMES.join("://, "))),
        }
    }
}

/// The address of an OpenTelemetry collector that accepts traces by HTTP: `http://`, a host and a port. It usually runs
/// beside the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OtlpEndpoint(Authority);

#[cfg(feature = "otlp")]
impl OtlpEndpoint {
    /// The host and port.
    #[must_use]
    pub(crate) fn authority(&self) -> &str {
        self.0.as_str()
    }

    /// The address for spans.
    #[must_use]
    pub(crate) fn traces(&self) -> String {
        format!("http://{}/v1/traces", self.0)
    }
}

impl FromStr for OtlpEndpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let authority =
            text.strip_prefix("http://").and_then(|rest| rest.trim_end_matches('/').parse::<Authority>().ok());
        let is_plain = |it: &Authority| !it.host().is_empty() && it.port_u16().is_some() && !it.as_str().contains('@');
        match authority.filter(is_plain) {
            Some(authority) => Ok(Self(authority)),
            None => Err("is not a collector address like http://127.0.0.1:4318 (no TLS, no path)".to_owned()),
        }
    }
}

/// The name of a node: letters, digits, dot, underscore and hyphen, at most 64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeName(String);

impl NodeName {
    /// The host's name, with a hyphen for every character that a node's name cannot have; `node` if there is none.
    #[must_use]
    pub(crate) fn of_host() -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let fit = |letter: char| if is_node_letter(letter) { letter } else { '-' };
        let name: String = host.chars().map(fit).take(MAX_NODE_NAME_BYTES).collect();
        name.parse().unwrap_or_else(|_| Self("node".to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
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

/// The paths that accept WebSockets; `/` and `/ws` are always among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WsPaths(Vec<String>);

impl WsPaths {
    /// The paths, without duplicates.
    #[must_use]
    pub(crate) fn as_slice(&self) -> &[String] {
        &self.0
    }
}

impl FromStr for WsPaths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut paths = vec!["/".to_owned(), "/ws".to_owned()];
        for path in text.split(',').map(str::trim) {
            if !is_path(path) {
                return Err(format!("has {path:?}, which is not a path like /ws"));
            }
            if let Some(reserved) = reserved(path) {
                return Err(format!("has {path:?}, but {reserved} is the relay's own; choose another"));
            }
            if !paths.iter().any(|known| known == path) {
                paths.push(path.to_owned());
            }
        }
        Ok(Self(paths))
    }
}

/// The path prefix that a proxy keeps; empty for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PathPrefix(String);

impl PathPrefix {
    /// The prefix without a slash at its end: `/relay`, or nothing.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PathPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !is_path(text) {
            return Err("is not a path like /relay".to_owned());
        }
        let prefix = text.trim_end_matches('/');
        match reserved(prefix) {
            Some(reserved) => Err(format!("is under {reserved}, which is the relay's own; choose another")),
            None => Ok(Self(prefix.to_owned())),
        }
    }
}

/// Whether a text is a path of plain characters, from the slash on.
fn is_path(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'~' | b'-');
    text.starts_with('/') && !text.contains("//") && text.bytes().all(plain)
}

/// The reserved path that a path is, or is under.
fn reserved(path: &str) -> Option<&'static str> {
    let under = |rest: &str| rest.is_empty() || rest.starts_with('/');
    RESERVED_PATHS.into_iter().find(|own| path.strip_prefix(own).is_some_and(under))
}

/// A log filter that is known to be valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogFilter(String);

impl LogFilter {
    /// The filter as text.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A bare word that is not a level would count as a module and silence all others: it is more likely a typing
        // error.
        let slip = text.split(',').find(|part| !part.contains(['=', '[']) && part.parse::<LevelFilter>().is_err());
        if slip.is_some() || EnvFilter::try_new(text).is_err() {
            return Err("is not a log filter like info or warn,gitorial_relay=debug".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is not an address like 127.0.0.1:8080 or [::]:8080".to_owned())
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "is not a duration like 500ms, 30s, 5m or 1h 30m".to_owned())
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" | "true" | "yes" | "1" => Ok(true),
        "off" | "false" | "no" | "0" => Ok(false),
        _ => Err("must be on or off".to_owned()),
    }
}

pub(super) fn number<const MIN: usize, const MAX: usize>(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (MIN..=MAX).contains(number));
    number.ok_or_else(|| format!("is not a whole number from {MIN} to {MAX}"))
}

/// A strategy by its name, in either spelling (docs/protocol.md, "Sessions").
pub(super) fn redis_prefix(text: &str) -> Result<String, String> {
    RedisSettings::check_prefix(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

pub(super) fn strategy(text: &str) -> Result<Strategy, String> {
    let reader: StrDeserializer<'_, ValueError> = text.into_deserializer();
    Strategy::deserialize(reader)
        .map_err(|_| "is not one of first_come_first_served, user_choice, deny_both".to_owned())
}
