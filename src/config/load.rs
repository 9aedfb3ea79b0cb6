//! Builds a [`Config`] from flags, environment and file.
//!
//! clap reads the flags and checks every value. A value of the environment or the file replaces the setting's default
//! before that, so that all three sources go through one check, and a flag overrides them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::effective::Origin;
use super::error::env_name;
use super::{Config, ConfigError, Effective};

/// The command that only checks the settings.
const CHECK: &str = "check-config";

/// The commands that read settings.
const SERVING: [&str; 2] = ["serve", CHECK];

/// Settings whose values never appear in messages.
const SECRET: [&str; 3] = ["admin-token", "cluster-secret", "redis-url"];

/// The request of the command line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Invocation {
    /// Run a relay.
    Serve(Box<Config>),
    /// Print the settings, which are valid.
    Check(Vec<Effective>),
    /// Run one of the program's own commands: the whole parsed command line.
    Own(Box<ArgMatches>),
    /// Print this (help or version) and exit.
    Print(String),
}

/// Values by the names of their settings, as text, each with its origin.
type Values = HashMap<String, (String, Origin)>;

/// Returns the settings file that holds a setting's value, if one does.
type Source<'f, 'p> = &'f dyn Fn(&str) -> Option<&'p Path>;

/// The command line: the settings and the path of the settings file.
#[derive(clap::Args)]
struct Cli {
    #[command(flatten)]
    config: Config,

    /// A TOML file with settings, by the names of the flags without the dashes.
    #[arg(long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Reads the command line (`arguments`, the program's name first), the environment (`env`) and the settings file.
/// `own` adds the program's own commands, which have no settings.
///
/// # Errors
///
/// One sentence about the first problem. Nothing has been opened except the settings file.
pub(crate) fn read<I>(
    arguments: I,
    env: impl Fn(&str) -> Option<String>,
    own: impl Fn(Command) -> Command,
) -> Result<Invocation, ConfigError>
where
    I: IntoIterator<Item = OsString>,
{
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // The first pass reads only the flags: help shows the real defaults, and never the value of a secret.
    let (flags, matches) = match parse(command(&own), &arguments) {
        Ok(parsed) => parsed,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return Ok(Invocation::Print(error.to_string()));
        }
        Err(error) => {
            let first = arguments.get(1).and_then(|first| first.to_str()).unwrap_or_default();
            let serves = first.is_empty() || first.starts_with('-') || SERVING.contains(&first);
            let wrong = sentence(&error, None);
            return Err(if serves { wrong } else { wrong.without_env() });
        }
    };
    if !matches.subcommand_name().is_none_or(|name| SERVING.contains(&name)) {
        return Ok(Invocation::Own(Box::new(matches)));
    }
    let from_env = |name: &str| env(&env_name(name)).filter(|value| !value.is_empty());
    let file = flags.file.or_else(|| from_env("config").map(PathBuf::from));
    let mut values = match &file {
        Some(path) => read_file(path)?,
        None => Values::new(),
    };
    for name in names() {
        // `RELAY_LOG` is a short form that people know from other programs.
        let short = || (name == "log-level").then(|| from_env("log")).flatten();
        if let Some(value) = from_env(&name).or_else(short) {
            values.insert(name, (value, Origin::Environment));
        }
    }
    let origin = |name: &str| values.get(name).map(|(_, origin)| *origin);
    let source = |name: &str| file.as_deref().filter(|_| origin(name) == Some(Origin::File));
    let full = with_defaults(command(&own), &values);
    let (cli, matches) = parse(full, &arguments).map_err(|error| sentence(&error, Some(&source)))?;
    cli.config.validate()?;
    match matches.subcommand() {
        Some((CHECK, matches)) => {
            let of = |(name, id): (String, String)| Effective::of(&name, &id, matches, origin(&name));
            Ok(Invocation::Check(settings().map(of).collect()))
        }
        _ => Ok(Invocation::Serve(Box::new(cli.config))),
    }
}

/// Every setting at its default.
pub(super) fn defaults() -> Config {
    let parsed = parse(command(|command| command), &["gitorial-relay".into()]);
    parsed.map(|(cli, _)| cli.config).expect("defaults are valid settings")
}

/// The names of all settings, as flags without the dashes.
pub(super) fn names() -> Vec<String> {
    settings().map(|(name, _)| name).collect()
}

/// The names of all settings, and clap's names for them.
fn settings() -> impl Iterator<Item = (String, String)> {
    let settings = Config::augment_args(Command::new("settings"));
    let named = |arg: &clap::Arg| Some((arg.get_long()?.to_owned(), arg.get_id().to_string()));
    settings.get_arguments().filter_map(named).collect::<Vec<_>>().into_iter()
}

/// The command line that [`read`] parses, with the commands that `own` adds: for help, and for a shell's completions.
pub(crate) fn command(own: impl Fn(Command) -> Command) -> Command {
    let settings = |command: Command| {
        Cli::augment_args(command).mut_args(|arg| {
            let (Some(name), Some(help)) = (arg.get_long(), arg.get_help()) else { return arg };
            let help = format!("{help} [env: {}]", env_name(name));
            arg.help(help)
        })
    };
    let about = "Keeps websites and editors on the same step of a tutorial: a WebSocket relay with exactly one controller \
                 per session.";
    let serve = settings(Command::new("serve")).about("Runs a relay; the default");
    let check = settings(Command::new(CHECK)).about("Checks the settings as `serve` does, and prints them");
    let whole = settings(Command::new("gitorial-relay"))
        .about(about)
        .version(env!("CARGO_PKG_VERSION"))
        .override_usage("gitorial-relay [serve] [OPTIONS]\n       gitorial-relay <COMMAND>")
        .after_help("A flag overrides the environment, which overrides the file. An empty variable counts as unset.")
        .subcommand(serve.override_usage("gitorial-relay [serve] [OPTIONS]"))
        .subcommand(check.override_usage("gitorial-relay check-config [OPTIONS]"))
        .args_conflicts_with_subcommands(true)
        .disable_help_subcommand(true);
    own(whole)
}

/// Parses the settings and the whole command line. A command without settings leaves them at their defaults.
fn parse(mut command: Command, arguments: &[OsString]) -> Result<(Cli, ArgMatches), clap::Error> {
    let matches = command.try_get_matches_from_mut(arguments)?;
    let cli = match matches.subcommand() {
        Some((name, matches)) if SERVING.contains(&name) => Cli::from_arg_matches(matches)?,
        _ => Cli::from_arg_matches(&matches)?,
    };
    Ok((cli, matches))
}

fn with_defaults(command: Command, values: &Values) -> Command {
    let layer = |command: Command| {
        command.mut_args(|arg| match arg.get_long().and_then(|name| values.get(name)) {
            Some((value, _)) => arg.default_value(value.clone()),
            None => arg,
        })
    };
    SERVING.iter().fold(layer(command), |command, name| command.mut_subcommand(*name, layer))
}

/// The settings in a TOML file.
fn read_file(path: &Path) -> Result<Values, ConfigError> {
    let fail = |problem: String| ConfigError::File { path: path.to_owned(), problem };
    let text = std::fs::read_to_string(path)
        .map_err(|error| fail(format!("cannot be read ({error}); check --config (environment RELAY_CONFIG)")))?;
    let table: toml::Table = toml::from_str(&text).map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        fail(format!("line {line} is not valid TOML ({})", one_line(error.message())))
    })?;
    let known = names();
    table
        .into_iter()
        .map(|(name, value)| {
            if !known.contains(&name) {
                return Err(fail(format!("unknown setting {name:?}; --help lists all settings")));
            }
            let problem = || fail(format!("{name} must be text in quotes, a number, true, false or a list of texts"));
            let text = as_text(value).ok_or_else(problem)?;
            Ok((name, (text, Origin::File)))
        })
        .collect()
}

fn as_text(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(switch) => Some(switch.to_string()),
        toml::Value::Array(items) => {
            let texts: Option<Vec<_>> = items.iter().map(|item| item.as_str()).collect();
            texts.map(|texts| texts.join(","))
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

/// Shortens clap's message to one sentence. `source` returns the file that a value came from, if it came from one.
fn sentence(error: &clap::Error, source: Option<Source<'_, '_>>) -> ConfigError {
    let context = |kind: ContextKind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    let argument = context(ContextKind::InvalidArg).unwrap_or_default();
    let name = argument.strip_prefix("--").and_then(|rest| rest.split([' ', '=', '[']).next()).unwrap_or_default();
    match error.kind() {
        ErrorKind::InvalidValue | ErrorKind::ValueValidation if !name.is_empty() => {
            let value = context(ContextKind::InvalidValue).unwrap_or_default();
            let shown = if SECRET.contains(&name) { "the value".to_owned() } else { format!("{value:?}") };
            let file = source.and_then(|source| source(name));
            let place = file.map(|path| format!(" in {}", path.display())).unwrap_or_default();
            let why = match (std::error::Error::source(error), context(ContextKind::ValidValue)) {
                (Some(why), _) => why.to_string(),
                (None, Some(valid)) if !value.is_empty() => format!("is not one of {valid}"),
                (None, _) => return ConfigError::setting(name, "needs a value"),
            };
            ConfigError::setting(name, format!("{shown}{place} {}", one_line(&why)))
        }
        ErrorKind::InvalidValue if context(ContextKind::ValidValue).is_some() => {
            let valid = context(ContextKind::ValidValue).unwrap_or_default();
            ConfigError::Arguments(format!("{argument} is not one of {valid}"))
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            ConfigError::Arguments("missing subcommand".to_owned())
        }
        ErrorKind::MissingRequiredArgument => {
            ConfigError::Arguments(format!("{} is missing", argument.replace(", ", " and ")))
        }
        // The argument may be a session's id, which is a secret.
        ErrorKind::InvalidSubcommand => {
            let similar = context(ContextKind::SuggestedSubcommand);
            let hint = similar.map(|similar| format!(" (similar: {similar})")).unwrap_or_default();
            ConfigError::Arguments(format!("unknown command{hint}"))
        }
        ErrorKind::UnknownArgument if !argument.starts_with('-') => {
            ConfigError::Arguments("unexpected argument".to_owned())
        }
        ErrorKind::UnknownArgument => {
            let similar = context(ContextKind::SuggestedArg);
            let hint = similar.map(|similar| format!(" (similar: {similar})")).unwrap_or_default();
            // The text after `=` may be a secret.
            let flag = argument.split('=').next().unwrap_or_default();
            ConfigError::Arguments(format!("unknown option {flag:?}{hint}"))
        }
        ErrorKind::ArgumentConflict if !name.is_empty() => ConfigError::setting(name, "is given twice; give it once"),
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            ConfigError::Arguments(line.strip_prefix("error: ").unwrap_or(line).to_owned())
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
