//! Handles messages from other nodes.

use super::output::{Counted, Output, Outputs};
use super::parcel::Parcel;
use super::{Member, Step};
use crate::ids::{ConnectionId, NodeId};
use crate::protocol::{Frame, FrameType};
use crate::route::{Body, Kind, RoutedFrame, Target};
use crate::session::Place;

impl<S, T, O: Outputs<S, T>> Step<'_, '_, S, T, O> {
    pub(super) fn message(&mut self, from: &NodeId, body: Body) {
        match body {
            Body::Changed { version } => {
                if self.room.known.view.as_ref().is_none_or(|view| view.version < version) {
                    self.reload();
                }
            }
            Body::Frame(frame) => self.routed(from, frame),
            Body::RecentStates(states) => self.room.stream.passed.learn(&states),
        }
    }

    fn routed(&mut self, from: &NodeId, RoutedFrame { route, text }: RoutedFrame) {
        let (epoch, seq, source) = (route.epoch, route.seq, route.source);
        // A false epoch must not raise the fence, and what came with it is not believed either.
        if !epoch.is_possible(self.env.now.store) {
            return self.count(Counted::Dropped);
        }
        match route.kind {
            Kind::State => {
                let stream = &mut self.room.stream;
                if !stream.fence.admit(epoch, source, seq) {
                    return self.count(Counted::Dropped);
                }
                (stream.needs_resync, stream.asked) = (false, None);
                stream.passed.note(route.state_hash);
                self.deliver(&route.target, Parcel::state(text, source, epoch, seq, route.state_hash));
            }
            Kind::Answer => {
                let targets = targets(&mut self.room.members, &route.target);
                for connection in targets.map(|member| member.connection).collect::<Vec<ConnectionId>>() {
                    let parcel = Parcel::new(text.clone(), FrameType::StateUpdate, epoch, seq);
                    self.answer(connection, parcel, route.state_hash);
                }
            }
            Kind::RequestSync => {
                // The document, as this node last read it, does not name that node yet, so the controller's answer
                // would not reach it. The controller is asked when the document is read again.
                let to_controller = matches!(route.target, Target::Only(_));
                if to_controller && !self.room.known.elsewhere.contains(from) {
                    self.room.stream.early_sync_request = true;
                    return;
                }
                // Its answer would be refused. The controller is asked as soon as this node has a lease again.
                if to_controller && self.env.trust.term(self.env.now).is_none() {
                    return;
                }
                let asker = Place { node: from.clone(), connection: source };
                for member in targets(&mut self.room.members, &route.target) {
                    member.states.ask(Some(asker.clone()), self.env.now.local);
                }
                self.deliver(&route.target, Parcel::new(text, FrameType::RequestSync, epoch, seq));
            }
            Kind::Accept => {
                for member in targets(&mut self.room.members, &route.target) {
                    member.accepted = Some((source, text.clone()));
                }
            }
            Kind::Release => self.room.stream.release = Some((source, text)),
            Kind::Other => {
                let kind = Frame::parse(text.clone()).map_or(FrameType::Unknown, |frame| frame.kind);
                self.deliver(&route.target, Parcel::new(text, kind, epoch, seq));
            }
        }
    }

    fn deliver(&mut self, target: &Target, mut parcel: Parcel) {
        for member in targets(&mut self.room.members, target) {
            member.deliver(&mut parcel, self.out);
        }
    }

    /// Handles a gap: another node missed messages of this one. It is told to read the document again, and the local
    /// controller repeats its state.
    pub(super) fn resync_after_gap(&mut self, to: &NodeId) {
        let Some(view) = &self.room.known.view else {
            // The room was closed since, and the version is not known any more.
            return self.out.put(Output::Publish(to, Body::Changed { version: u64::MAX }));
        };
        if !self.room.known.elsewhere.contains(to) {
            return;
        }
        self.out.put(Output::Publish(to, Body::Changed { version: view.version }));
        // A question to the controller may be among the lost messages.
        self.room.stream.asked = None;
        self.request_own_state();
    }
}

fn targets<'a, S>(members: &'a mut [Member<S>], target: &'a Target) -> impl Iterator<Item = &'a mut Member<S>> {
    members.iter_mut().filter(|member| target.includes(member.connection))
}
