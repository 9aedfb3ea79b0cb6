//! The commands of the program besides running a relay: they let an operator ask nodes about their health and sessions.
//!
//! The commands are ordinary clients: they speak HTTP and the protocol with a node, and know nothing of its inside. A
//! session id that is passed to them is a secret of the caller, and no message repeats it.

mod address;
mod call;
mod check_config;
mod healthcheck;
mod selftest;
mod session;
mod watch;

use std::io::Write;
use std::process::ExitCode;

use crate::config;
use crate::output::{LAST_WORDS, at_most};
use clap::{ArgMatches, Command, FromArgMatches, Subcommand};
use clap_complete::Shell;

pub(crate) use check_config::table;

/// The exit code of a command that failed.
pub(crate) const FAILED: u8 = 1;
/// The exit code of a command line or setting that is wrong.
pub(crate) const WRONG_USE: u8 = 2;

/// The largest length of text from other programs that is shown.
const LONGEST_TEXT: usize = 500;

/// The reason why a command failed.
#[derive(Debug, thiserror::Error)]
enum ToolError {
    /// The command line makes no sense.
    #[error("{0}")]
    Use(String),
    /// A setting that supplies a default is wrong.
    #[error(transparent)]
    Setting(#[from] config::ConfigError),
    /// The node gave no answer.
    #[error(transparent)]
    Call(#[from] call::CallError),
    /// The node refused the request.
    #[error("{0}")]
    Refused(String),
    /// This machine lacks something that the command needs.
    #[error("cannot start: {0}")]
    Machine(#[from] std::io::Error),
}

impl ToolError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Use(_) | Self::Setting(_) => WRONG_USE,
            Self::Call(_) | Self::Refused(_) | Self::Machine(_) => FAILED,
        }
    }
}

#[derive(Subcommand)]
enum Tool {
    /// Asks a node whether it is alive, and exits with 0 or 1: for containers, whose image has no shell.
    Healthcheck(healthcheck::Healthcheck),
    /// Creates, shows, deletes or lists sessions.
    #[command(subcommand)]
    Session(session::Session),
    /// Joins a session and prints its events, one on each line. The watcher is one of the session's clients.
    Watch(watch::Watch),
    /// Sends a frame from one node to another, and reports whether it arrived.
    Selftest(selftest::Selftest),
    /// Prints a shell's completions for this program.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Adds these commands to the program's command line.
pub(crate) fn add_to(command: Command) -> Command {
    Tool::augment_subcommands(command)
}

/// Runs the command of the command line.
pub(crate) fn run(matches: &ArgMatches, env: impl Fn(&str) -> Option<String>) -> ExitCode {
    match Tool::from_arg_matches(matches).map(|tool| perform(tool, &env)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(error.exit_code(), &error),
        // The command line has been parsed before.
        Err(error) => fail(WRONG_USE, &error.kind()),
    }
}

fn perform(tool: Tool, env: &dyn Fn(&str) -> Option<String>) -> Result<(), ToolError> {
    let asks = match tool {
        Tool::Completions { shell } => return completions(shell),
        asks => asks,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        match asks {
            Tool::Healthcheck(healthcheck) => healthcheck.run(env).await,
            Tool::Session(session) => session.run(env).await,
            Tool::Watch(watch) => watch.run(env).await,
            Tool::Selftest(selftest) => selftest.run().await,
            Tool::Completions { .. } => Ok(()),
        }
    });
    // The look-up of a name cannot be cancelled, and its thread must not delay the end.
    runtime.shutdown_background();
    done
}

fn completions(shell: Shell) -> Result<(), ToolError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut config::command(add_to), "gitorial-relay", &mut script);
    print(String::from_utf8_lossy(&script).trim_end());
    Ok(())
}

/// Prints to standard output. Returns `false` if nobody reads it any more, which is no reason to stop a relay.
pub(crate) fn print(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
}

/// Text from another program, shortened and without characters that a terminal takes for commands.
fn plain(text: &str) -> String {
    let shown = |letter: char| match letter.is_control() {
        true => letter.escape_unicode().to_string(),
        false => letter.to_string(),
    };
    text.chars().take(LONGEST_TEXT).map(shown).collect()
}

/// Prints the reason why the program ends, in one sentence.
pub(crate) fn fail(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    let text = format!("gitorial-relay: {error}");
    // The program ends even if nobody reads its reason.
    at_most(LAST_WORDS, move || {
        let _ = writeln!(std::io::stderr(), "{text}");
    });
    ExitCode::from(code)
}
