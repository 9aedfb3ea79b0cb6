//! Handles messages from other nodes.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Relay;
use crate::broker::{Body, Delivery, Kind, Message, RoutedFrame, Target};
use crate::hub::{Member, Parcel, Room, RoomState};
use crate::ids::{NodeId, SessionId};
use crate::protocol::{Frame, FrameType};
use crate::session::Place;

/// How many deliveries are handled before the task yields.
const BATCH: usize = 64;

impl Relay {
    /// Handles the broker's deliveries until it is told to stop or the broker ends.
    pub async fn deliveries(self, mut inbox: mpsc::Receiver<Delivery>, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                received = inbox.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        return;
                    }
                }
            }
            for delivery in batch.drain(..) {
                self.on_delivery(delivery);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Handles one delivery.
    pub fn on_delivery(&self, delivery: Delivery) {
        match delivery {
            Delivery::Message { from, message: Message { session, body } } => {
                let Some(room) = self.inner.hub.find(session) else { return };
                match body {
                    Body::Changed { version } => {
                        let known = room.lock().view.as_ref().map(|view| view.version);
                        if known.is_none_or(|known| known < version) {
                            self.refresh(&room);
                        }
                    }
                    Body::Frame(frame) => self.on_routed(&room, from, &frame),
                    Body::RecentStates(states) => room.lock().passed.learn(&states),
                }
            }
            Delivery::Lost { to, sessions } => self.resync_after_gap(&to, sessions),
        }
    }

    fn on_routed(&self, room: &Arc<Room>, from: NodeId, RoutedFrame { route, text }: &RoutedFrame) {
        let mut state = room.lock();
        match route.kind {
            Kind::State => {
                if !state.fence.admit(route.epoch, route.source, route.seq) {
                    self.inner.metrics.dropped.inc();
                    return;
                }
                (state.needs_resync, state.asked) = (false, None);
                state.passed.note(route.state_hash);
                let mut parcel = Parcel::new(text.clone(), FrameType::StateUpdate, route.epoch, route.seq);
                (parcel.state_of, parcel.state_hash) = (Some(route.source), Some(route.state_hash));
                self.deliver(&state, &route.target, &mut parcel);
            }
            Kind::Answer => {
                for member in targets(&state, &route.target).cloned().collect::<Vec<_>>() {
                    let parcel = Parcel::new(text.clone(), FrameType::StateUpdate, route.epoch, route.seq);
                    self.answer(&mut state, &member, parcel, route.state_hash);
                }
            }
            Kind::RequestSync => {
                // The document, as this node last read it, does not name that node yet, so the controller's answer
                // would not reach it. The controller is asked when the document is read again.
                if matches!(route.target, Target::Only(_)) && !state.elsewhere.contains(&from) {
                    state.early_sync_request = true;
                    return;
                }
                let asker = Place { node: from, connection: route.source };
                let now = Instant::now();
                for member in targets(&state, &route.target) {
                    member.lock().ask(Some(asker.clone()), now);
                }
                let mut parcel = Parcel::new(text.clone(), FrameType::RequestSync, route.epoch, route.seq);
                self.deliver(&state, &route.target, &mut parcel);
            }
            Kind::Accept => {
                for member in targets(&state, &route.target) {
                    member.lock().accepted = Some((route.source, text.clone()));
                }
            }
            Kind::Release => state.release = Some((route.source, text.clone())),
            Kind::Other => {
                let kind = Frame::parse(text.clone()).map_or(FrameType::Unknown, |frame| frame.kind);
                let mut parcel = Parcel::new(text.clone(), kind, route.epoch, route.seq);
                self.deliver(&state, &route.target, &mut parcel);
            }
        }
    }

    fn deliver(&self, room: &RoomState, target: &Target, parcel: &mut Parcel) {
        for member in targets(room, target) {
            let superseded = member.deliver(parcel, &self.inner.settings.queue);
            self.inner.metrics.conflated.inc_by(superseded as u64);
        }
    }

    /// Handles a gap: another node missed messages of this one. It is told to read the documents again, and the local
    /// controller repeats its state.
    fn resync_after_gap(&self, to: &NodeId, sessions: Option<Vec<SessionId>>) {
        self.inner.metrics.link_gaps.inc();
        let rooms = match sessions {
            Some(ids) => ids.into_iter().filter_map(|id| self.inner.hub.find(id)).collect(),
            None => self.inner.hub.rooms(),
        };
        for room in rooms {
            let mut state = room.lock();
            if !state.elsewhere.contains(to) {
                continue;
            }
            if let Some(view) = &state.view {
                let body = Body::Changed { version: view.version };
                self.inner.broker.publish(to, Message { session: room.id, body });
            }
            self.request_own_state(&mut state);
        }
    }
}

fn targets<'a>(room: &'a RoomState, target: &'a Target) -> impl Iterator<Item = &'a Arc<Member>> {
    room.members.iter().filter(move |member| match target {
        Target::Others => true,
        Target::Only(connections) => connections.contains(&member.connection),
    })
}
