//! The checker: finds the broken promises in a history. Pure, and tested with forged histories.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::history::{Event, Quiet, Role, StateFrame, What, Who};

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// States of two clients were forwarded in one epoch.
    TwoControllers { session: usize, epoch: u64, clients: (Who, Who) },
    /// A receiver saw a state of an older epoch after one of a newer epoch.
    OlderAfterNewer { receiver: Who, older: u64, newer: u64 },
    /// A receiver saw a sender's states out of order.
    OutOfOrder { receiver: Who, author: Who, step: u64, after: u64 },
    /// A receiver got one frame twice.
    Twice { receiver: Who, frame: u64 },
    /// A frame arrived in a session that it does not belong to.
    WrongSession { receiver: Who, author: Who },
    /// A session with a client in it was gone.
    SessionLost { who: Who, reason: String },
    /// A client's states were forwarded in an epoch in which it had not been told that it has control.
    DroveUntold { who: Who, epoch: u64 },
    /// A client stayed connected and was never told that another had taken control from it.
    LossUntold { who: Who, epoch: u64 },
    /// The relay did something to a client that must not be done to one.
    Hurt { who: Who, how: String },
    /// Control was on its way to a client for longer than a lease lasts.
    #[allow(dead_code, reason = "only the simulator sees the document at every moment")]
    Stuck { session: usize },
    /// After healing, a client was wrong about its role.
    WrongRole { who: Who, controller: Option<Who> },
    /// After healing, a follower did not have its controller's last state.
    Missed { who: Who, last: Option<(Who, u64)>, of: (Who, u64) },
    /// After healing, clients followed without a controller.
    NobodyDrives { session: usize, followers: usize },
    /// After healing, a follower had no role any more, though control had not been given up.
    RoleLost { who: Who },
    /// After healing, a client was not in its session.
    NotBack { who: Who },
    /// After healing, the store counted the wrong number of clients.
    Miscounted { session: usize, counted: usize, there: usize },
}

impl Verdict {
    /// The promise, in a word for tables.
    pub fn promise(&self) -> Promise {
        match self {
            Self::TwoControllers { .. } | Self::OlderAfterNewer { .. } | Self::DroveUntold { .. } => Promise::Exclusion,
            Self::SessionLost { .. } | Self::NotBack { .. } => Promise::Sessions,
            Self::Missed { .. } => Promise::States,
            Self::OutOfOrder { .. } | Self::Twice { .. } | Self::WrongSession { .. } => Promise::Order,
            Self::LossUntold { .. } | Self::Hurt { .. } | Self::WrongRole { .. } | Self::Miscounted { .. } => {
                Promise::Truth
            }
            Self::NobodyDrives { .. } | Self::RoleLost { .. } | Self::Stuck { .. } => Promise::Truth,
        }
    }
}

impl Verdict {
    /// The session that a verdict after healing is about.
    pub fn session(&self) -> Option<usize> {
        match self {
            Self::WrongRole { who, .. } | Self::Missed { who, .. } | Self::NotBack { who } | Self::RoleLost { who } => {
                Some(who.session)
            }
            Self::Miscounted { session, .. } | Self::NobodyDrives { session, .. } => Some(*session),
            _ => None,
        }
    }
}

/// The promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Promise {
    /// Never two controllers.
    Exclusion,
    /// No session with a living client is lost.
    Sessions,
    /// No follower misses its controller's last state for good.
    States,
    /// Each sender's frames in order, once, where they belong.
    Order,
    /// Clients are told the truth.
    Truth,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Reads a whole history.
pub fn judge(events: &[Event]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let epochs = epochs_of_frames(events);
    let came_back =
        |who: Who, from: usize| events[from + 1..].iter().any(|event| event.who == who && event.what == What::Opened);
    verdicts.extend(one_driver_per_epoch(events));
    verdicts.extend(order(events, &epochs));
    verdicts.extend(told(events));
    for (index, Event { who, what, .. }) in events.iter().enumerate() {
        match what {
            // A node that starts after Redis has lost a session says that it is unknown until another node restores it.
            // A client without the handshake comes back after any close; at rest it has to be there.
            What::Closed(1008, reason) if reason == "Session not found" && came_back(*who, index) => {}
            What::Closed(1008, reason) if !reason.starts_with("Evicted") => {
                verdicts.push(Verdict::SessionLost { who: *who, reason: reason.clone() });
            }
            What::Hurt(how) => verdicts.push(Verdict::Hurt { who: *who, how: how.clone() }),
            _ => {}
        }
    }
    verdicts
}

/// The epoch in which each frame was forwarded, as far as a client with the handshake saw it. A client without the
/// handshake is shown no epochs, but others got the same frame.
fn epochs_of_frames(events: &[Event]) -> HashMap<u64, u64> {
    let seen = events.iter().filter_map(|event| match &event.what {
        What::Got(state) => state.epoch.map(|epoch| (state.frame, epoch)),
        _ => None,
    });
    seen.collect()
}

fn one_driver_per_epoch(events: &[Event]) -> Vec<Verdict> {
    let mut drivers: HashMap<(usize, u64), Who> = HashMap::new();
    let mut verdicts = Vec::new();
    for event in events {
        let What::Got(StateFrame { author, repeated: false, epoch: Some(epoch), .. }) = event.what else { continue };
        let session = event.who.session;
        let driver = *drivers.entry((session, epoch)).or_insert(author);
        if driver != author {
            verdicts.push(Verdict::TwoControllers { session, epoch, clients: (driver, author) });
        }
    }
    verdicts
}

/// The frames that one receiver has seen so far. Their order and number are promised for each connection: a client
/// back on another node may read the same frames again there. The order of epochs is promised for good.
#[derive(Default)]
struct Seen {
    epoch: u64,
    frames: HashSet<u64>,
    steps: HashMap<Who, u64>,
}

fn order(events: &[Event], epochs: &HashMap<u64, u64>) -> Vec<Verdict> {
    let mut receivers: HashMap<Who, Seen> = HashMap::new();
    let mut verdicts = Vec::new();
    for event in events {
        let receiver = event.who;
        let seen = receivers.entry(receiver).or_default();
        if event.what == What::Opened {
            *seen = Seen { epoch: seen.epoch, ..Seen::default() };
        }
        let What::Got(state) = &event.what else { continue };
        if state.author.session != receiver.session {
            verdicts.push(Verdict::WrongSession { receiver, author: state.author });
        }
        if !seen.frames.insert(state.frame) {
            verdicts.push(Verdict::Twice { receiver, frame: state.frame });
        }
        // A repeated state was requested, and says nothing about control.
        if state.repeated {
            continue;
        }
        if let Some(&epoch) = epochs.get(&state.frame) {
            if epoch < seen.epoch {
                verdicts.push(Verdict::OlderAfterNewer { receiver, older: epoch, newer: seen.epoch });
            }
            seen.epoch = seen.epoch.max(epoch);
        }
        let last = seen.steps.entry(state.author).or_insert(0);
        if state.step <= *last {
            let (author, step, after) = (state.author, state.step, *last);
            verdicts.push(Verdict::OutOfOrder { receiver, author, step, after });
        }
        *last = (*last).max(state.step);
    }
    verdicts
}

/// The roles that one client with the handshake was told.
#[derive(Default)]
struct Roles {
    /// The epochs in which it was told that it has control.
    active: HashSet<u64>,
    /// The epoch of that on this socket, if it was told nothing else since.
    standing: Option<u64>,
}

/// The epochs in which each client was told that it has control.
fn epochs_told(events: &[Event]) -> HashSet<(Who, u64)> {
    let told = events.iter().filter_map(|event| match event.what {
        What::ClientView(Role::Active, Some(epoch)) => Some((event.who, epoch)),
        _ => None,
    });
    told.collect()
}

/// Every accepted change of control is told to both sides: the controller is told, though it may learn its new epoch by
/// a frame that was sent just before; and the one that lost control is told while it stays connected, at the latest
/// before the history ends.
fn told(events: &[Event]) -> Vec<Verdict> {
    let ever = epochs_told(events);
    let mut roles: HashMap<Who, Roles> = HashMap::new();
    let mut newest: HashMap<usize, (u64, Who)> = HashMap::new();
    let mut verdicts = Vec::new();
    for Event { who, what, .. } in events {
        match what {
            What::Opened | What::Closed(..) => roles.entry(*who).or_default().standing = None,
            What::ClientView(Role::Active, Some(epoch)) => {
                let roles = roles.entry(*who).or_default();
                roles.active.insert(*epoch);
                roles.standing = Some(*epoch);
            }
            What::ClientView(..) => roles.entry(*who).or_default().standing = None,
            What::Got(StateFrame { author, epoch: Some(epoch), repeated: false, .. }) => {
                // Clients without the handshake are told no epoch.
                let known = roles.get(author).filter(|roles| !roles.active.is_empty());
                if known.is_some() && !ever.contains(&(*author, *epoch)) {
                    verdicts.push(Verdict::DroveUntold { who: *author, epoch: *epoch });
                }
                let entry = newest.entry(who.session).or_insert((*epoch, *author));
                if entry.0 < *epoch {
                    *entry = (*epoch, *author);
                }
            }
            _ => {}
        }
    }
    for (who, roles) in &roles {
        let (Some(standing), Some((epoch, driver))) = (roles.standing, newest.get(&who.session)) else { continue };
        if standing < *epoch && driver != who {
            verdicts.push(Verdict::LossUntold { who: *who, epoch: *epoch });
        }
    }
    verdicts
}

/// Judges one session after everything has healed and all users are idle.
pub fn judge_quiet(session: usize, quiet: &Quiet) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let there = quiet.standings.iter().filter(|standing| standing.connected).count();
    if there != quiet.clients {
        verdicts.push(Verdict::Miscounted { session, counted: quiet.clients, there });
    }
    // One follower without a controller may have been the first to choose a role; after two choices there is one. The
    // first generation cannot be told that there is no controller.
    let followers = quiet.standings.iter().filter(|standing| standing.follows && !standing.stubborn).count();
    if quiet.controller.is_none() && followers > 1 {
        verdicts.push(Verdict::NobodyDrives { session, followers });
    }
    let last_of = |who: Who| quiet.standings.iter().find(|standing| standing.who == who).and_then(|s| s.last);
    let newest = quiet.controller.and_then(last_of);
    for standing in &quiet.standings {
        let who = standing.who;
        if !standing.connected {
            verdicts.push(Verdict::NotBack { who });
            continue;
        }
        let controls = quiet.controller == Some(who);
        // A client of the first generation that comes back keeps its belief, and its first frame makes it true.
        let believes = standing.active && !(standing.stubborn && quiet.controller.is_none());
        // The relay cannot know that no user is there to use the control that it grants.
        if believes != controls && !standing.deserted {
            verdicts.push(Verdict::WrongRole { who, controller: quiet.controller });
        }
        if standing.lost_role && quiet.controller.is_some() {
            verdicts.push(Verdict::RoleLost { who });
        }
        // A client that came back without a handshake may still believe that it follows.
        let follows = standing.follows || (standing.returned && standing.last.is_some() && !controls);
        if let Some(of) = newest.filter(|of| follows && standing.last != Some(*of)) {
            verdicts.push(Verdict::Missed { who, last: standing.last, of });
        }
    }
    verdicts
}
