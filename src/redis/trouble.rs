//! What the library says about a connection that ended.

use fred::error::Error;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Begins the text of an error about bytes that are no answer, or exceed a bound (docs/decisions, 23).
const UNREADABLE: &str = "Decode Error: ";

/// The longest text about such bytes that is kept.
const LONGEST: usize = 240;

/// Why a connection ended, or was not made.
#[derive(Debug, Default)]
pub(super) struct Trouble(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    last: Option<Error>,
    /// What could not be read, and when, until a command that is sent later is answered.
    unreadable: Option<(Instant, String)>,
    /// What was logged last about bytes that cannot be read.
    told: Option<String>,
}

impl Trouble {
    /// Notes an error. Bytes that cannot be read are logged, once for as long as it is the same.
    pub(super) fn note(&self, error: Error) {
        let mut seen = self.0.lock();
        if let Some(what) = error.details().strip_prefix(UNREADABLE) {
            let what: String = what.chars().take(LONGEST).collect();
            if seen.told.as_ref() != Some(&what) {
                tracing::warn!(error = what, "redis sends what is no answer; the connection is made again");
                seen.told = Some(what.clone());
            }
            seen.unreadable = Some((Instant::now(), what));
        }
        seen.last = Some(error);
    }

    /// The last error.
    pub(super) fn last(&self) -> Option<Error> {
        self.0.lock().last.clone()
    }

    /// What could not be read since the last answer, if anything.
    pub(super) fn unreadable(&self) -> Option<String> {
        self.0.lock().unreadable.as_ref().map(|(_, what)| what.clone())
    }

    /// Notes that a command that was sent then is answered. What cannot be read may follow in the same bytes.
    pub(super) fn answered(&self, sent: Instant) {
        self.0.lock().unreadable.take_if(|(noted, _)| *noted < sent);
    }
}
