//! The life of a relay process. Exit codes: 0 after an orderly end, 1 if the relay cannot run, 2 if a setting is wrong.
//! A second signal ends the process at once with 128 plus the signal's number (130 for SIGINT, 143 for SIGTERM).

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

mod cli;
mod config;
mod listen;
mod run;
mod telemetry;

use cli::{FAILED, WRONG_USE, fail, print};
use config::{Config, Invocation};
use listen::{Listeners, Shutdown};

fn main() -> ExitCode {
    match config::read(std::env::args_os(), variable, cli::add_to) {
        Ok(Invocation::Serve(config)) => match serve(*config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(FAILED, &format!("{error:#}")),
        },
        Ok(Invocation::Own(matches)) => cli::run(&matches, variable),
        Ok(Invocation::Check(settings)) => {
            print(&format!("{}\nthe settings are fine", cli::table(&settings)));
            ExitCode::SUCCESS
        }
        Ok(Invocation::Print(text)) => {
            print(text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => fail(WRONG_USE, &error),
    }
}

/// Reads a variable. Bytes that are not Unicode are replaced, so that the check of the setting reports the bad value.
fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn serve(config: Config) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start worker threads")?;
    // The telemetry is dropped before the runtime, because the runtime sends the last spans.
    let _telemetry = telemetry::init(&config.telemetry(), runtime.handle())?;
    runtime.block_on(async {
        let listeners = Listeners::bind(&config, announce)?;
        let shutdown = on_signals().context("cannot listen for signals")?;
        run::run(config, listeners, shutdown).await?;
        Ok(())
    })
}

/// Prints the only line on standard output, for the process that started the relay and waits for it.
fn announce(address: SocketAddr) {
    print(&format!("listening on http://{address}"));
}

/// The first signal asks the node to drain. The second one ends the process without waiting.
fn on_signals() -> std::io::Result<Shutdown> {
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
