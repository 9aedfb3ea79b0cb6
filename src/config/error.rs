//! What was wrong with a setting, in one sentence.

use std::path::PathBuf;

/// Why a node does not start: one sentence that names the setting, what is wrong with it and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// One setting is wrong, wherever it came from.
    #[error("--{name} (environment {}): {problem}", env_name(name))]
    Setting {
        /// Its name, as the flag has it without the dashes.
        name: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The command line is wrong before any setting is looked at.
    #[error("{0}; try --help")]
    Arguments(String),
    /// The settings file cannot be read, or is no such file.
    #[error("settings file {}: {problem}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
}

impl ConfigError {
    pub(super) fn setting(name: &str, problem: impl Into<String>) -> Self {
        Self::Setting { name: name.to_owned(), problem: problem.into() }
    }

    /// The same about a flag that is no setting, and so has no variable.
    pub(super) fn without_env(self) -> Self {
        match self {
            Self::Setting { name, problem } => Self::Arguments(format!("--{name}: {problem}")),
            other => other,
        }
    }
}

/// The environment variable of the setting called `name`.
pub(super) fn env_name(name: &str) -> String {
    format!("RELAY_{}", name.replace('-', "_").to_ascii_uppercase())
}
