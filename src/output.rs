//! Standard output and standard error, whose reader may be slow or may have stopped reading. A full pipe blocks whoever
//! writes to it, so no task and no end of the program may depend on such a write.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// How long the end of the program waits for a reader.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(2);

/// Does this in a thread of its own, and waits for it, but not for longer than `limit`.
pub(crate) fn at_most(limit: Duration, work: impl FnOnce() + Send + 'static) {
    let (done, wait) = channel();
    aside(move || {
        work();
        // Nobody waits any more if it took too long.
        let _ = done.send(());
    });
    // The sender is also dropped if there could be no thread.
    let _ = wait.recv_timeout(limit);
}

/// Does this in a thread of its own, and does not wait for it.
pub(crate) fn aside(work: impl FnOnce() + Send + 'static) {
    // A process that gets no thread any more has worse problems than a line that is not written.
    let _ = thread::Builder::new().name("output".to_owned()).spawn(work);
}
