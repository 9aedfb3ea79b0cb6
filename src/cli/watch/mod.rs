//! `watch`: joins a session as a client that does the handshake and then only listens (docs/protocol.md, "The
//! handshake").
//!
//! The watcher counts as a client of the session. It never asks for a role. If it gets control because no other client
//! has it, it keeps control until another client claims it. When its socket breaks, it comes back with its resume
//! token, at the next of its addresses.

mod line;
mod visit;

use std::time::Duration;

use crate::listen::Shutdown;
use gitorial_relay::ids::SessionId;
use rand::Rng;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use super::address::{Address, Port};
use super::session::session_id;
use super::{ToolError, print};
use line::Event;
use visit::{Ended, Place, visit};

/// The bounds of the pause before the watcher comes back. Each pause is random, between zero and a bound that doubles.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A visit of at least this length resets the pause to a short one.
const STEADY: Duration = Duration::from_secs(10);

/// The arguments of `watch`.
#[derive(clap::Args)]
pub(super) struct Watch {
    /// The id of the session.
    #[arg(value_name = "ID")]
    id: String,

    /// The address of the node; by default the one in this machine's settings. May be given several times: when one
    /// address fails, the next is tried.
    #[arg(long, value_name = "URL")]
    url: Vec<Address>,

    /// Print one JSON object on each line, for programs.
    #[arg(long)]
    json: bool,
}

/// The output, and whether anybody still reads it.
struct Report {
    json: bool,
    session: SessionId,
    reader_gone: Shutdown,
}

impl Report {
    fn say(&self, event: &Event) {
        let line = if self.json { event.json() } else { event.text() };
        // A client's name can be any text, even the session's id.
        let line = line.replace(&self.session.reveal(), "…");
        if !print(&line) {
            self.reader_gone.request();
        }
    }
}

impl Watch {
    pub(super) async fn run(self, env: &dyn Fn(&str) -> Option<String>) -> Result<(), ToolError> {
        let session = session_id(&self.id)?;
        let addresses = match self.url.is_empty() {
            true => vec![Address::resolve(None, Port::Clients, env)?],
            false => self.url,
        };
        let stop = on_signals()?;
        let report = Report { json: self.json, session, reader_gone: stop.clone() };
        follow(&addresses, session, &report, &stop).await
    }
}

/// Visits the session repeatedly, until it is over.
async fn follow(addresses: &[Address], session: SessionId, report: &Report, stop: &Shutdown) -> Result<(), ToolError> {
    let mut place = Place::new(session);
    let mut failures = 0;
    for address in addresses.iter().cycle() {
        let began = Instant::now();
        let ended = visit(address, &mut place, report, stop).await;
        if began.elapsed() >= STEADY {
            failures = 0;
        }
        let why = match ended {
            Ended::Stopped => {
                report.say(&Event::Stopped);
                return Ok(());
            }
            Ended::Over(why) if place.has_been_in() => {
                report.say(&Event::Ended { why });
                return Ok(());
            }
            Ended::Over(why) | Ended::Refused(why) => return Err(ToolError::Refused(why.to_owned())),
            Ended::Lost(why) => why,
        };
        failures += 1;
        // A watcher that has never joined has probably got a wrong address.
        if !place.has_been_in() && failures >= addresses.len() {
            return Err(ToolError::Refused(why));
        }
        let pause = pause(failures);
        report.say(&Event::Lost { why, pause });
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.requested() => {
                report.say(&Event::Stopped);
                return Ok(());
            }
        }
    }
    Ok(())
}

fn pause(failures: usize) -> Duration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(10);
    let bound = (SHORTEST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE);
    rand::rng().random_range(Duration::ZERO..=bound)
}

/// Turns the signals that stop the watcher into a shutdown request.
fn on_signals() -> std::io::Result<Shutdown> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = Shutdown::new();
    let wish = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        wish.request();
    });
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_pauses_grow_and_stay_bounded() {
        for failures in 1..100 {
            let bound = if failures == 1 { SHORTEST_PAUSE } else { LONGEST_PAUSE };
            assert!((0..20).all(|_| pause(failures) <= bound), "{failures}");
        }
    }
}
