//! The settings as they count in the end, for people: each with its value and where that came from, and no secret.

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::error::env_name;
use super::{NodeName, RedisUrl};

/// What stands for a secret.
const HIDDEN: &str = "***";

/// Where a setting's value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag.
    Flag,
    /// A variable of the environment.
    Environment,
    /// The settings file.
    File,
    /// Nobody said anything.
    Default,
}

/// One setting as it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Its name, as the flag has it without the dashes.
    pub name: String,
    /// Its value as it was written, secrets hidden; `None` if it has none.
    pub value: Option<String>,
    /// Where the value came from.
    pub origin: Origin,
}

impl Effective {
    /// Reads the setting `name` from the parsed command line. `environment`, `file`: whether these have a value for it.
    pub(super) fn of(name: &str, id: &str, matches: &ArgMatches, environment: bool, file: bool) -> Self {
        let origin = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => Origin::Flag,
            _ if environment => Origin::Environment,
            _ if file => Origin::File,
            _ => Origin::Default,
        };
        let raw = matches.get_raw(id).and_then(|mut values| values.next());
        let value = raw.map(|value| shown(name, &value.to_string_lossy()));
        let value = value.or_else(|| (name == "node-id").then(|| NodeName::of_host().as_str().to_owned()));
        Self { name: name.to_owned(), value, origin }
    }

    /// Where the value came from, as one says it.
    #[must_use]
    pub fn source(&self) -> String {
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
        "admin-token" => HIDDEN.to_owned(),
        "redis-url" => value.parse::<RedisUrl>().map_or_else(|_| HIDDEN.to_owned(), |url| url.masked()),
        _ => value.to_owned(),
    }
}
