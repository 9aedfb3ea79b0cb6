//! Passes frames on: to the clients on this node directly, to the others by their nodes.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::Step;
use super::member::find;
use super::output::{Counted, Output, Outputs};
use super::parcel::Parcel;
use crate::ids::{ConnectionId, NodeId, Seq};
use crate::protocol::Frame;
use crate::route::{Body, Kind, Route, RoutedFrame, Target};
use crate::session::Place;

impl<S, T, O: Outputs<S, T>> Step<'_, '_, S, T, O> {
    /// Forwards a frame to all other clients.
    pub(super) fn pass(&mut self, from: ConnectionId, frame: &Frame, kind: Kind, seq: Seq) {
        let (epoch, now) = (self.room.epoch(), self.env.now.local);
        let hash = if kind == Kind::State { frame.data_hash() } else { 0 };
        let mut parcel = if kind == Kind::State {
            let stream = &mut self.room.stream;
            (stream.needs_resync, stream.asked) = (false, None);
            stream.passed.note(hash);
            Parcel::state(frame.text.clone(), from, epoch, seq, hash)
        } else {
            Parcel::new(frame.text.clone(), frame.kind, epoch, seq)
        };
        let others = self.room.members.iter_mut().filter(|member| member.connection != from);
        for member in others {
            if kind == Kind::RequestSync {
                member.states.ask(Some(Place { node: self.env.here.clone(), connection: from }), now);
            }
            member.deliver(&mut parcel, self.out);
        }
        let route = Route { source: from, epoch, seq, state_hash: hash, target: Target::Others, kind };
        self.publish_elsewhere(&route, &frame.text);
    }

    /// Forwards an answer to the clients that asked for it, on any node.
    pub(super) fn pass_answer(&mut self, from: ConnectionId, frame: &Frame, askers: &[Place], seq: Seq) {
        let (here, epoch, state_hash) = (self.env.here, self.room.epoch(), frame.data_hash());
        for asker in askers.iter().filter(|asker| asker.node == *here) {
            let parcel = Parcel::new(frame.text.clone(), frame.kind, epoch, seq);
            self.answer(asker.connection, parcel, state_hash);
        }
        let nodes: BTreeSet<&NodeId> = askers.iter().map(|asker| &asker.node).collect();
        for node in nodes.into_iter().filter(|node| *node != here) {
            let there = askers.iter().filter(|asker| asker.node == *node);
            let target = Target::Only(there.map(|asker| asker.connection).collect());
            let route = Route { source: from, epoch, seq, state_hash, target, kind: Kind::Answer };
            self.publish(node, route, frame.text.clone());
        }
    }

    /// Sends an answer to a client that asked, unless a state of the ACTIVE client has overtaken it. If the client that
    /// asked is the ACTIVE client, its followers must get the state that it continues from.
    pub(super) fn answer(&mut self, to: ConnectionId, mut parcel: Parcel, hash: u64) {
        let Some(member) = find(&mut self.room.members, to) else { return };
        let another = member.states.last.is_some_and(|last| last != hash);
        if member.states.updated && another {
            return self.count(Counted::Dropped);
        }
        parcel.state_hash = Some(hash);
        member.deliver(&mut parcel, self.out);
        let controls = self.room.control.local.is_some_and(|controller| controller.connection == to);
        member.states.may_cross = controls;
        if (another || self.room.stream.needs_resync) && controls {
            self.room.stream.asked = None;
            self.request_own_state();
        }
    }

    /// Sends a frame to all other nodes that have clients.
    pub(super) fn publish_elsewhere(&mut self, route: &Route, text: &Bytes) {
        for node in &self.room.known.elsewhere {
            let frame = RoutedFrame { route: route.clone(), text: text.clone() };
            self.out.put(Output::Publish(node, Body::Frame(frame)));
        }
    }

    pub(super) fn publish(&mut self, node: &NodeId, route: Route, text: Bytes) {
        self.out.put(Output::Publish(node, Body::Frame(RoutedFrame { route, text })));
    }
}
