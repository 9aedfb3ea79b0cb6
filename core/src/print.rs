//! Short hashes of a document and of a room, for a search through all states of a small world.
//!
//! The hashes leave out what no decision about control depends on: times and numbers that only inform or order clients,
//! payloads, and questions for the tutorial's state. So states that differ only in these count as one state. Equal
//! values have equal hashes, as the contract of [`Hash`] demands.

use std::hash::{Hash, Hasher};

use crate::session::{Client, Controller, Core, Offer, Request, Session};

impl Hash for Session {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { info: _, core, rosters, activity: _ } = self;
        (core, rosters).hash(state);
    }
}

impl Hash for Core {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { status, epoch, controller, transfer, ended: _, everyone, requests, offer, .. } = self;
        (status, epoch, controller, transfer, everyone, requests, offer).hash(state);
        (&self.superseded, self.changed_at, self.doubtful_until).hash(state);
    }
}

impl Hash for Controller {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { place, client: _, provisional, since: _ } = self;
        (place.connection, provisional).hash(state);
    }
}

impl Hash for Request {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { place, client: _, at: _ } = self;
        place.connection.hash(state);
    }
}

impl Hash for Offer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { client, at: _, declined } = self;
        (client, declined).hash(state);
    }
}

impl Hash for Client {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { connection, id: _, alias, modern, resume, resume_before, joined_at, spoke, given, cut_off_at } =
            self;
        (connection, alias, modern, resume, resume_before, joined_at, spoke, given, cut_off_at.is_some()).hash(state);
    }
}
