//! Timed work: this node's lease, the other nodes' leases, and what is due in the rooms.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::Rng;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::driver::{Driver, Input};
use super::readiness::Trouble;
use crate::hub::Room;
use crate::ids::NodeId;
use crate::presence::{RenewError, Renewed};

/// How long a node that has never held its lease waits before it tries again.
const START_PAUSE: Duration = Duration::from_millis(50);

/// How many rooms are read again at once after a fault, and how long the next ones wait, so that the recovery does not
/// overload the store.
const REFRESH_CHUNK: usize = 200;
const REFRESH_PAUSE: Duration = Duration::from_millis(50);

/// The task that keeps a node's lease.
pub(super) struct Upkeep {
    driver: Arc<Driver>,
}

impl Upkeep {
    pub(super) fn of(driver: Arc<Driver>) -> Self {
        Self { driver }
    }

    /// Does all timed work, until told to stop.
    pub(super) async fn run(self, stop: CancellationToken) {
        let heartbeat = self.driver.settings.timing.heartbeat;
        // A starting node retries quickly, because its clients wait for it. A store that says no is asked less often.
        let mut pause = START_PAUSE;
        while self.driver.presence.term().is_none() && !self.driver.started.load(Ordering::Acquire) {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.tick() => {}
            }
            let refused = self.driver.trouble.lock().as_ref().is_some_and(Trouble::is_refusal);
            pause = if refused { (2 * pause).min(heartbeat) } else { START_PAUSE };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
        let mut ticks = interval(heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.tick().await,
            }
        }
    }

    /// Renews the lease, watches the other nodes, and lets every room do what is due.
    pub(super) async fn tick(&self) {
        let had_lease = self.driver.presence.term().is_some();
        match self.driver.presence.renew().await {
            Ok(renewed) => self.renewed(renewed, had_lease),
            Err(error) => self.not_renewed(&error),
        }
        self.watch_others().await;
        for room in self.driver.hub.rooms() {
            self.driver.step(&room, Input::Tick);
        }
    }

    fn renewed(&self, renewed: Renewed, had_lease: bool) {
        self.driver.started.store(true, Ordering::Release);
        let trouble = self.driver.trouble.lock().take();
        if had_lease && trouble.is_some() {
            tracing::info!("the lease is renewed again");
        }
        if !had_lease {
            tracing::info!(node = %self.driver.presence.node, "the store is reached and the lease is held: serving");
        }
        if renewed.data_lost {
            tracing::warn!("the store has lost its memory; the sessions of connected clients are restored");
        }
        if renewed.new_term || renewed.data_lost {
            self.distrust_all(renewed.data_lost);
        }
    }

    /// Notes why the lease was not renewed. The log tells each reason once, not with every attempt.
    fn not_renewed(&self, error: &RenewError) {
        let serving = self.driver.presence.term().is_some();
        let mut trouble = Trouble::of(error, serving);
        let loud = trouble.is_refusal() || self.driver.started.load(Ordering::Acquire);
        let mut place = self.driver.trouble.lock();
        let before = place.take();
        let news = trouble.is_news_after(before.as_ref(), loud);
        *place = Some(trouble);
        drop(place);
        if news {
            tracing::warn!(%error, serving, "the lease could not be renewed");
        } else {
            tracing::debug!(%error, serving, "the lease could not be renewed");
        }
        if before.is_some_and(|before| before.serving && !serving) {
            tracing::warn!("the lease is over: no session has a controller on this node until it is renewed");
        }
    }

    /// Marks every room as stale, because nothing that was known before a lapse is certain, and reads them all again.
    fn distrust_all(&self, data_lost: bool) {
        let mut rooms = self.driver.hub.rooms();
        for room in &rooms {
            self.driver.step(room, Input::Distrust { data_lost });
        }
        let driver = self.driver.clone();
        self.driver.tasks.spawn(async move {
            while !rooms.is_empty() {
                let rest = rooms.split_off(rooms.len().min(REFRESH_CHUNK));
                rooms.iter().for_each(|room| driver.step(room, Input::Reload));
                rooms = rest;
                let jitter = rand::rng().random_range(1.0..2.0);
                tokio::time::sleep(REFRESH_PAUSE.mul_f64(jitter)).await;
            }
        });
    }

    async fn watch_others(&self) {
        let rooms = self.driver.hub.rooms();
        let mut nodes = HashSet::new();
        for room in &rooms {
            if let Some(view) = room.lock().machine.view() {
                nodes.extend(view.session.rosters.keys().cloned());
            }
        }
        nodes.remove(&self.driver.presence.node);
        match self.driver.presence.watch(&nodes).await {
            Ok(lapsed) => {
                for node in lapsed {
                    tracing::warn!(%node, "the lease of another node has lapsed; its clients are cut off");
                    self.driver.broker.forget(&node);
                    self.reap(&node, &rooms);
                }
            }
            Err(error) => tracing::debug!(%error, "the other nodes could not be watched"),
        }
    }

    /// Reads the sessions again in which a dead node had clients. The first live node of each session does so at once;
    /// the others do so a little later, when there is usually nothing left to do.
    fn reap(&self, dead: &NodeId, rooms: &[Arc<Room>]) {
        let lapsed = self.driver.presence.lapsed();
        let mut later = Vec::new();
        for room in rooms {
            let Some(session) = room.lock().machine.view().map(|view| view.session.clone()) else { continue };
            if !session.rosters.contains_key(dead) {
                continue;
            }
            if session.first_alive(&lapsed) == Some(&self.driver.presence.node) {
                self.driver.step(room, Input::Reload);
            } else {
                later.push(room.clone());
            }
        }
        let (driver, pause) = (self.driver.clone(), self.driver.settings.timing.heartbeat);
        self.driver.tasks.spawn(async move {
            tokio::time::sleep(pause).await;
            later.iter().for_each(|room| driver.step(room, Input::Reload));
        });
    }
}
