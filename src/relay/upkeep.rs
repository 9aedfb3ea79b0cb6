//! Timed work in one region: this node's lease, the other nodes' leases, and what is due in the rooms.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::driver::{Driver, Input};
use super::readiness::Trouble;
use super::regions::Held;
use crate::hub::Room;
use crate::ids::NodeId;
use crate::presence::{RenewError, Renewed};
use crate::region::Region;

/// How long a node that has never held its lease waits before it tries again.
const START_PAUSE: Duration = Duration::from_millis(50);

/// How many rooms are read again at once after a fault, and how long the next ones wait, so that the recovery does not
/// overload the store.
const REFRESH_CHUNK: usize = 200;
const REFRESH_PAUSE: Duration = Duration::from_millis(50);

/// The task that keeps a node's lease in one region.
pub(super) struct Upkeep {
    driver: Arc<Driver>,
    region: Region,
}

impl Upkeep {
    pub(super) fn of(driver: Arc<Driver>, region: Region) -> Self {
        Self { driver, region }
    }

    fn held(&self) -> &Held {
        self.driver.regions.at(self.region)
    }

    /// Does all timed work, until told to stop.
    pub(super) async fn run(self, stop: CancellationToken) {
        let heartbeat = self.driver.settings.timing.heartbeat;
        // A starting node retries quickly, because its clients wait for it. A store that says no is asked less often.
        let mut pause = START_PAUSE;
        while self.held().presence.term().is_none() && !self.held().has_started() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.tick() => {}
            }
            let refused = self.held().trouble.lock().as_ref().is_some_and(Trouble::is_refusal);
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
        let had_lease = self.held().presence.term().is_some();
        match self.held().presence.renew().await {
            Ok(renewed) => self.renewed(renewed, had_lease),
            Err(error) => self.not_renewed(&error),
        }
        self.watch_others().await;
        for room in self.driver.hub.rooms_of(self.region) {
            self.driver.step(&room, Input::Tick);
        }
    }

    fn renewed(&self, renewed: Renewed, had_lease: bool) {
        self.held().start();
        let trouble = self.held().trouble.lock().take();
        if had_lease && trouble.is_some() {
            tracing::info!("the lease is renewed again");
        }
        if !had_lease {
            self.tell_that_it_serves();
        }
        if renewed.data_lost {
            tracing::warn!("the store has lost its memory; the sessions of connected clients are restored");
        }
        if renewed.new_term || renewed.data_lost {
            self.distrust_all(renewed.data_lost);
        }
    }

    /// The log tells of the first region that is served, and of the last.
    fn tell_that_it_serves(&self) {
        let (away, all) = (self.driver.regions.away(), self.driver.regions.division().count());
        let node = &self.driver.node;
        if all == 1 {
            tracing::info!(%node, "the store is reached and the lease is held: serving");
        } else if away == 0 || away == all - 1 {
            tracing::info!(%node, regions = all, away, "the store is reached and a lease is held: serving");
        } else {
            tracing::debug!(%node, region = self.region.index(), away, "a region is served");
        }
    }

    /// Notes why the lease was not renewed. The log tells each reason once, not with every attempt.
    fn not_renewed(&self, error: &RenewError) {
        let serving = self.held().presence.term().is_some();
        let mut trouble = Trouble::of(error, serving);
        let loud = trouble.is_refusal() || self.held().has_started();
        let mut place = self.held().trouble.lock();
        let before = place.take();
        let news = trouble.is_news_after(before.as_ref(), loud);
        *place = Some(trouble);
        drop(place);
        if news {
            tracing::warn!(%error, serving, region = self.region.index(), "the lease could not be renewed");
        } else {
            tracing::debug!(%error, serving, region = self.region.index(), "the lease could not be renewed");
        }
        if before.is_some_and(|before| before.serving && !serving) {
            let region = self.region.index();
            tracing::warn!(region, "the lease is over: no session has a controller on this node until it is renewed");
        }
    }

    /// Marks every room as stale, because nothing that was known before a lapse is certain, and reads them all again.
    fn distrust_all(&self, data_lost: bool) {
        let mut rooms = self.driver.hub.rooms_of(self.region);
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
        let rooms = self.driver.hub.rooms_of(self.region);
        let mut nodes = HashSet::new();
        for room in &rooms {
            if let Some(view) = room.lock().machine.view() {
                nodes.extend(view.session.rosters.keys().cloned());
            }
        }
        nodes.remove(&self.driver.node);
        match self.held().presence.watch(&nodes).await {
            Ok(lapsed) => {
                for node in lapsed {
                    tracing::warn!(%node, "the lease of another node has lapsed; its clients are cut off");
                    self.driver.broker.forget(self.region, &node);
                    self.reap(&node, &rooms);
                }
            }
            Err(error) => tracing::debug!(%error, "the other nodes could not be watched"),
        }
    }

    /// Reads the sessions again in which a dead node had clients. The first live node of each session does so at once;
    /// the others do so a little later, when there is usually nothing left to do.
    fn reap(&self, dead: &NodeId, rooms: &[Arc<Room>]) {
        let lapsed = self.held().presence.lapsed();
        let mut later = Vec::new();
        for room in rooms {
            let Some(session) = room.lock().machine.view().map(|view| view.session.clone()) else { continue };
            if !session.rosters.contains_key(dead) {
                continue;
            }
            if session.first_alive(&lapsed) == Some(&self.driver.node) {
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
