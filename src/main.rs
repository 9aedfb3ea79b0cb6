//! The life of a relay process. Exit codes: 0 after an orderly end, 1 if the relay cannot run, 2 if a setting is wrong.
//! A second signal ends the process at once with 128 plus the signal's number (130 for SIGINT, 143 for SIGTERM).

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

mod cli;
mod config;
mod listen;
mod output;
mod run;
mod telemetry;

use cli::{FAILED, WRONG_USE, fail, print};
use config::{Config, Invocation, LogFormat};
use listen::{Listeners, Shutdown};
use telemetry::Log;

fn main() -> ExitCode {
    match config::read(std::env::args_os(), variable, cli::add_to) {
        Ok(Invocation::Serve(config)) => {
            let format = config.log_format;
            match serve(*config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail_as(format, FAILED, &format!("{error:#}")),
            }
        }
        Ok(Invocation::Own(matches)) => cli::run(&matches, variable),
        Ok(Invocation::Check(settings)) => {
            print(&format!("{}\nthe settings are fine", cli::table(&settings)));
            ExitCode::SUCCESS
        }
        Ok(Invocation::Print(text)) => {
            print(text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => fail_as(format_of_a_refusal(), WRONG_USE, &error.to_string()),
    }
}

/// Prints the reason why a node ends, in the form of its log.
fn fail_as(format: LogFormat, code: u8, reason: &str) -> ExitCode {
    match format {
        LogFormat::Text => fail(code, &reason),
        LogFormat::Json => {
            let line = telemetry::json_line("ERROR", reason);
            output::at_most(output::LAST_WORDS, move || {
                let _ = writeln!(std::io::stderr(), "{line}");
            });
            ExitCode::from(code)
        }
    }
}

/// The form of the sentence about a wrong setting, as far as it can be known without the settings. A command of an
/// operator always gets text.
fn format_of_a_refusal() -> LogFormat {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let serves = arguments.first().is_none_or(|first| first == "serve" || first.starts_with('-'));
    let after = arguments.iter().skip_while(|argument| *argument != "--log-format").nth(1).cloned();
    let joined = arguments.iter().find_map(|argument| argument.strip_prefix("--log-format=")).map(str::to_owned);
    let format = after.or(joined).or_else(|| variable("RELAY_LOG_FORMAT"));
    if serves && format.as_deref() == Some("json") { LogFormat::Json } else { LogFormat::Text }
}

/// Reads a variable. Bytes that are not Unicode are replaced, so that the check of the setting reports the bad value.
fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn serve(config: Config) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start worker threads")?;
    // The telemetry is dropped before the runtime, because the runtime sends the last spans.
    let telemetry = telemetry::init(&config.telemetry(), runtime.handle())?;
    runtime.block_on(async {
        let format = config.log_format;
        let listeners = Listeners::bind(&config, move |address| announce(format, address))?;
        let shutdown = on_signals(telemetry.log()).context("cannot listen for signals")?;
        run::run(config, listeners, shutdown, telemetry.log()).await?;
        Ok(())
    })
}

/// Prints the only line on standard output, for the process that started the relay and waits for it.
fn announce(format: LogFormat, address: SocketAddr) {
    let text = format!("listening on http://{address}");
    let line = match format {
        LogFormat::Text => text,
        LogFormat::Json => telemetry::json_line("INFO", &text),
    };
    output::aside(move || {
        // A process whose address nobody reads serves all the same.
        let _ = print(&line);
    });
}

/// The first signal asks the node to drain. The second one ends the process without waiting.
fn on_signals(log: Log) -> std::io::Result<Shutdown> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = Shutdown::new();
    let wish = shutdown.clone();
    tokio::spawn(async move {
        let first = either(&mut interrupt, &mut terminate).await;
        tracing::info!(signal = first.as_raw_value(), "draining; a second signal stops at once");
        wish.request();
        let second = either(&mut interrupt, &mut terminate).await;
        tracing::warn!(signal = second.as_raw_value(), "stopping at once");
        log.finish();
        std::process::exit(128 + second.as_raw_value());
    });
    Ok(shutdown)
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) -> SignalKind {
    tokio::select! {
        _ = interrupt.recv() => SignalKind::interrupt(),
        _ = terminate.recv() => SignalKind::terminate(),
    }
}
