//! The effective settings for people: each with its value and the origin of the value, without secrets.

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::error::env_name;
use super::{NodeName, RedisUrl};

/// The text that replaces a secret.
const HIDDEN: &str = "***";

/// The origin of a setting's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A flag.
    Flag,
    /// An environment variable.
    Environment,
    /// The settings file.
    File,
    /// The default.
    Default,
}

/// One effective setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Effective {
    /// The name of the flag, without the dashes.
    pub(crate) name: String,
    /// The value as it was written, with secrets hidden; `None` if the setting has no value.
    pub(crate) value: Option<String>,
    /// The origin of the value.
    pub(crate) origin: Origin,
}

impl Effective {
    /// Reads the setting `name` from the parsed command line. `given`: the origin of its value apart from the flags.
    pub(super) fn of(name: &str, id: &str, matches: &ArgMatches, given: Option<Origin>) -> Self {
        let origin = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => Origin::Flag,
            _ => given.unwrap_or(Origin::Default),
        };
        let raw = matches.get_raw(id).and_then(|mut values| values.next());
        let value = raw.map(|value| shown(name, &value.to_string_lossy()));
        let value = value.or_else(|| (name == "node-id").then(|| NodeName::of_host().as_str().to_owned()));
        Self { name: name.to_owned(), value, origin }
    }

    /// The origin of the value, as text.
    #[must_use]
    pub(crate) fn source(&self) -> String {
        match self.origin {
            Origin::Flag => format!("--{}", self.name),
            Origin::Environment => env_name(&self.name),
            Origin::File => "settings file".to_owned(),
            Origin::Default => "default".to_owned(),
        }
    }
}

fn shown(name: &str, value: &str) -> String {
    match name {
        "admin-token" | "cluster-secret" => HIDDEN.to_owned(),
        "redis-url" => value.parse::<RedisUrl>().map_or_else(|_| HIDDEN.to_owned(), |url| url.masked()),
        _ => value.to_owned(),
    }
}
