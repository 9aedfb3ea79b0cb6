//! An error in the settings, in one sentence.

use std::path::PathBuf;

/// The reason why a node does not start: one sentence that names the setting, the problem and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    /// One setting is wrong, whatever the origin of its value.
    #[error("--{name} (environment {}): {problem}", env_name(name))]
    Setting {
        /// The name of the flag, without the dashes.
        name: String,
        /// The problem and the remedy.
        problem: String,
    },
    /// The command line is wrong, apart from the settings.
    #[error("{0}; try --help")]
    Arguments(String),
    /// The settings file cannot be read, or is invalid.
    #[error("settings file {}: {problem}", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The problem and the remedy.
        problem: String,
    },
}

impl ConfigError {
    pub(super) fn setting(name: &str, problem: impl Into<String>) -> Self {
        Self::Setting { name: name.to_owned(), problem: problem.into() }
    }

    /// The same error for a flag that is not a setting, and so has no environment variable.
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
