//! Timed work: this node's lease, the other nodes' leases, time-outs, activity reports and repairs.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::Rng;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Relay;
use super::decide::keep;
use crate::hub::{Room, RoomState};
use crate::ids::{ConnectionId, Millis, NodeId};
use crate::presence::RenewError;
use crate::session::{Activity, Core, Session, Status};
use crate::store::StoreError;

/// How often a node reports the activity of a busy session to the store.
const REPORT_INTERVAL: Millis = 5_000;

/// How long a node that has never held its lease waits before it tries again.
const START_PAUSE: Duration = Duration::from_millis(50);

/// How many rooms are read again at once after a fault, and how long the next ones wait, so that the recovery does not
/// overload the store.
const REFRESH_CHUNK: usize = 200;
const REFRESH_PAUSE: Duration = Duration::from_millis(50);

impl Relay {
    /// Keeps the node's lease and does all timed work, until told to stop.
    pub async fn upkeep(self, stop: CancellationToken) {
        // A starting node retries quickly, because its clients wait for it.
        while self.inner.presence.term().is_none() && !self.inner.started.load(Ordering::Acquire) {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.on_tick() => {}
            }
            tokio::time::sleep(START_PAUSE).await;
        }
        let mut ticks = interval(self.inner.settings.timing.heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.on_tick().await,
            }
        }
    }

    /// Renews the lease, watches the other nodes, and starts the work that is due.
    pub async fn on_tick(&self) {
        let had_lease = self.inner.presence.term().is_some();
        match self.inner.presence.renew().await {
            Ok(renewed) => {
                self.inner.started.store(true, Ordering::Release);
                self.inner.inbox_silent.store(false, Ordering::Release);
                if !had_lease {
                    tracing::info!(node = %self.node(), "the store is reached and the lease is held: serving");
                }
                if renewed.data_lost {
                    tracing::warn!("the store has lost its memory; the sessions of connected clients are restored");
                }
                if renewed.new_term || renewed.data_lost {
                    self.read_all_again(renewed.data_lost);
                }
            }
            Err(error) => {
                self.inner.inbox_silent.store(matches!(error, RenewError::Broker(_)), Ordering::Release);
                let serving = self.inner.presence.term().is_some();
                if self.inner.started.load(Ordering::Acquire) {
                    tracing::warn!(%error, serving, "the lease could not be renewed");
                } else {
                    tracing::debug!(%error, "the store cannot be reached yet");
                }
            }
        }
        self.watch_others().await;
        self.sweep();
    }

    /// Marks every room as stale, because nothing that was known before a lapse is certain. A store that has lost its
    /// data counts its writes from one again.
    fn read_all_again(&self, data_lost: bool) {
        let mut rooms = self.inner.hub.rooms();
        for room in &rooms {
            let mut state = room.lock();
            state.stale = true;
            if data_lost {
                // The store may now have an older document than this node.
                state.view.iter_mut().for_each(|view| view.version = 0);
            }
        }
        let relay = self.clone();
        self.inner.tasks.spawn(async move {
            while !rooms.is_empty() {
                let rest = rooms.split_off(rooms.len().min(REFRESH_CHUNK));
                rooms.iter().for_each(|room| relay.refresh(room));
                rooms = rest;
                let jitter = rand::rng().random_range(1.0..2.0);
                tokio::time::sleep(REFRESH_PAUSE.mul_f64(jitter)).await;
            }
        });
    }

    async fn watch_others(&self) {
        let rooms = self.inner.hub.rooms();
        let mut nodes = HashSet::new();
        for room in &rooms {
            if let Some(view) = &room.lock().view {
                nodes.extend(view.session.rosters.keys().cloned());
            }
        }
        nodes.remove(self.node());
        match self.inner.presence.watch(&nodes).await {
            Ok(lapsed) => {
                for node in lapsed {
                    tracing::warn!(%node, "the lease of another node has lapsed; its clients are cut off");
                    self.inner.broker.forget(&node);
                    self.reap(&node, &rooms);
                }
            }
            Err(error) => tracing::debug!(%error, "the other nodes could not be watched"),
        }
    }

    /// Refreshes the sessions in which a dead node had clients. The first live node of each session does so at once;
    /// the others do so a little later, when there is usually nothing left to do.
    fn reap(&self, dead: &NodeId, rooms: &[Arc<Room>]) {
        let lapsed = self.inner.presence.lapsed();
        let mut later = Vec::new();
        for room in rooms {
            let state = room.lock();
            let Some(view) = &state.view else { continue };
            let mut nodes = view.session.rosters.keys();
            if !view.session.rosters.contains_key(dead) {
                continue;
            }
            let first = nodes.find(|node| !lapsed.contains(*node)) == Some(self.node());
            drop(state);
            if first {
                self.refresh(room);
            } else {
                later.push(room.clone());
            }
        }
        let (relay, pause) = (self.clone(), self.inner.settings.timing.heartbeat);
        self.inner.tasks.spawn(async move {
            tokio::time::sleep(pause).await;
            later.iter().for_each(|room| relay.refresh(room));
        });
    }

    fn sweep(&self) {
        let now = self.now();
        for room in self.inner.hub.rooms() {
            let state = room.lock();
            let due = state.stale || now >= state.due_at;
            let report = self.unreported(&state, now, due);
            drop(state);
            match (due, report) {
                (true, Some((activity, session))) => {
                    let relay = self.clone();
                    self.inner.tasks.spawn(async move {
                        relay.touch(&room, activity, &session).await;
                        relay.refresh(&room);
                    });
                }
                (true, None) => self.refresh(&room),
                (false, Some((activity, session))) => self.report_activity(&room, activity, session),
                (false, None) => {}
            }
        }
    }

    /// The activity of this node's clients that the store does not know yet.
    fn unreported(&self, room: &RoomState, now: Millis, at_once: bool) -> Option<(Activity, Arc<Session>)> {
        let (known, at) = room.reported;
        let view = room.view.as_ref()?;
        let interval = REPORT_INTERVAL.min(view.session.info.ttl / 4);
        let due = at_once || now.saturating_sub(at) >= interval;
        (due && known != room.activity).then(|| (room.activity, view.session.clone()))
    }

    /// Notes the activity of a client of this room; `drove`: it was the controller. The first activity after a pause is
    /// reported at once.
    pub(super) fn note_activity(&self, room: &mut RoomState, drove: bool) {
        let now = self.now();
        room.activity.seen_at = now;
        if drove {
            room.activity.drove_at = now;
        }
        let Some((activity, session)) = self.unreported(room, now, false) else { return };
        let Some(member) = room.members.first() else { return };
        room.reported = (activity, now);
        self.report_activity(&member.room.clone(), activity, session);
    }

    fn report_activity(&self, room: &Arc<Room>, activity: Activity, session: Arc<Session>) {
        let (relay, room) = (self.clone(), room.clone());
        self.inner.tasks.spawn(async move { relay.touch(&room, activity, &session).await });
    }

    async fn touch(&self, room: &Arc<Room>, activity: Activity, session: &Session) {
        let now = self.now();
        let mut active = session.clone();
        active.activity.insert(self.node().clone(), activity);
        let keep = keep(&active, now);
        match self.inner.store.touch(room.id, self.node(), activity, keep).await {
            Ok(true) => room.lock().reported = (activity, now),
            Ok(false) => room.lock().stale = true,
            Err(error) => {
                tracing::debug!(session = room.id.tag(), %error, "activity could not be reported; the relay retries");
                room.lock().reported.1 = now;
            }
        }
    }

    /// The time at which this document needs the next decision.
    pub(super) fn due_at(&self, session: &Session) -> Millis {
        let rules = &self.inner.settings.rules;
        let lapsed = self.inner.presence.lapsed();
        let pending = millis(rules.pending);
        let claims = session.core.requests.iter().map(|request| request.at + pending);
        let offers = session.core.offer.iter().map(|offer| offer.at + pending);
        let ours = session.rosters.iter().filter(|(node, _)| *node == self.node() || lapsed.contains(*node));
        let grace = ours.flat_map(|(_, roster)| roster.clients.iter().filter_map(|client| client.cut_off_at));
        let grace = grace.map(|since| since + millis(rules.grace));
        let ends = std::iter::once(session.expires_at());
        let doubt =
            Some(session.core.doubtful_until).filter(|until| session.core.controller.is_none() && *until > self.now());
        claims.chain(offers).chain(grace).chain(ends).chain(doubt).min().unwrap_or(Millis::MAX)
    }

    /// The local client that certainly had control when the store lost its data: it was the controller on this node, no
    /// write was taking control from it, and the lease has not lapsed since, so that no other client can have taken
    /// control.
    pub(super) fn confirmed_controller(&self, room: &RoomState) -> Option<ConnectionId> {
        let sure =
            room.controller.filter(|controller| !controller.suspended && self.inner.presence.covers(controller.term));
        sure.map(|controller| controller.connection)
    }

    /// Whether the document names a client of this node as the controller and this node is not certain of it, because
    /// the store may have forgotten a grant to another client. `sure`: the confirmed controller.
    pub(super) fn doubts_controller(&self, session: &Session, sure: Option<ConnectionId>) -> bool {
        let own = session.core.controller.as_ref().filter(|controller| controller.place.node == *self.node());
        let connection = own.map(|controller| controller.place.connection);
        connection.is_some() && connection != sure && self.inner.presence.may_have_lost_data()
    }

    /// Writes the session of this room again if the store has lost it with its data. Returns `false` if the store has
    /// not, so that the session is over.
    pub(super) async fn restore(&self, room: &Arc<Room>) -> Result<bool, StoreError> {
        // The heartbeat may not have noticed the loss yet: a server that was flushed by hand keeps its name.
        if !self.inner.presence.may_have_lost_data() {
            self.inner.presence.check_lineage().await?;
        }
        let view = room.lock().view.clone();
        let Some(view) = view.filter(|_| self.inner.presence.may_have_lost_data()) else { return Ok(false) };
        if view.session.core.status != Status::Active {
            return Ok(false);
        }
        let now = self.inner.store.time().await?;
        let mut session = view.session.as_ref().clone();
        // Each node restores its own clients only. Whether its controller keeps control is decided when the document is
        // read again.
        session.rosters.retain(|node, _| node == self.node());
        session.activity.retain(|node, _| node == self.node());
        session.activity.entry(self.node().clone()).or_default().seen_at = now;
        let Core { epoch, controller, everyone, changed_at, superseded, .. } = session.core;
        let controller = controller.filter(|controller| controller.place.node == *self.node());
        let doubtful_until = now + self.inner.presence.timing().patience();
        session.core = Core { epoch, controller, everyone, changed_at, superseded, doubtful_until, ..Core::default() };
        let keep = keep(&session, now);
        self.inner.store.create(room.id, &session, keep).await?;
        tracing::info!(session = room.id.tag(), "session restored after the store lost its data");
        Ok(true)
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
