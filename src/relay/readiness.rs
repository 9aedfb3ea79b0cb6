//! Whether a node can serve, and the reason if it cannot.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::Relay;
use super::regions::Held;
use crate::broker::BrokerError;
use crate::presence::RenewError;
use crate::store::StoreError;

/// Whether a node can serve, and the kind of the reason if it cannot (`/readyz`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The node serves.
    Ready,
    /// The node has not reached its store yet.
    Starting,
    /// The node is shutting down.
    Draining,
    /// The node has been without its store for longer than its lease.
    StoreUnavailable,
    /// The store, or the channels between the nodes, refuse what the node needs.
    StoreRefuses,
    /// The node's own inbox stays silent, so that frames of other nodes would not arrive.
    InboxSilent,
}

/// Why the lease was not renewed the last time.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    /// What the node is if it has no lease.
    kind: Readiness,
    /// The reason in one sentence.
    text: String,
    /// Whether the node still had its lease.
    pub(super) serving: bool,
    /// The reasons that were told since the last renewal, because two may alternate.
    told: BTreeSet<String>,
}

/// How many reasons are told until the lease is renewed.
const MAX_TOLD: usize = 16;

impl Trouble {
    pub(super) fn of(error: &RenewError, serving: bool) -> Self {
        let kind = match error {
            RenewError::Store(StoreError::Refused(_) | StoreError::Corrupt(_) | StoreError::Full)
            | RenewError::Broker(BrokerError::Refused(_)) => Readiness::StoreRefuses,
            RenewError::Store(StoreError::Unavailable(_)) => Readiness::StoreUnavailable,
            RenewError::Broker(BrokerError::Apart) => Readiness::StoreUnavailable,
            RenewError::Broker(BrokerError::InboxSilent | BrokerError::Unavailable(_)) => Readiness::InboxSilent,
        };
        Self { kind, text: error.to_string(), serving, told: BTreeSet::new() }
    }

    /// Whether this has to be told now: it is `loud`, and has not been told yet.
    pub(super) fn is_news_after(&mut self, before: Option<&Self>, loud: bool) -> bool {
        self.told = before.map(|before| before.told.clone()).unwrap_or_default();
        loud && self.told.len() < MAX_TOLD && self.told.insert(self.text.clone())
    }

    pub(super) fn is_refusal(&self) -> bool {
        self.kind == Readiness::StoreRefuses
    }
}

impl Relay {
    /// The worst trouble of the regions that have no lease: a refusal before a silence.
    fn trouble(&self) -> Option<Trouble> {
        let away = self.driver.regions.iter().filter(|held| held.presence.term().is_none());
        let mut troubles = away.filter_map(|held| held.trouble.lock().clone());
        let first = troubles.next()?;
        Some(if first.is_refusal() { first } else { troubles.find(Trouble::is_refusal).unwrap_or(first) })
    }

    fn serving(&self, trouble: Option<String>) -> String {
        match (self.driver.regions.away(), self.driver.regions.division().count()) {
            (0, _) => "serving".to_owned(),
            (away, all) => {
                let why = trouble.unwrap_or_else(|| "they have not been reached yet".to_owned());
                format!("serving, but {away} of {all} regions are away: {why}")
            }
        }
    }

    /// Whether this node can serve: it holds the lease of a region, and has tried to reach the others.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        if self.driver.draining.load(Ordering::Acquire) {
            return Readiness::Draining;
        }
        let regions = &self.driver.regions;
        if !regions.are_all_away() {
            let met = regions.have_been_met(self.driver.clock.local());
            return if met { Readiness::Ready } else { Readiness::Starting };
        }
        match self.trouble().map(|trouble| trouble.kind) {
            Some(Readiness::StoreRefuses) => Readiness::StoreRefuses,
            _ if !regions.iter().any(Held::has_started) => Readiness::Starting,
            kind => kind.unwrap_or(Readiness::StoreUnavailable),
        }
    }

    /// How many regions there are, and of how many of them this node has no lease.
    #[must_use]
    pub fn regions(&self) -> (usize, usize) {
        (self.driver.regions.division().count(), self.driver.regions.away())
    }

    /// The reason for [`Relay::readiness`] in one sentence, in the store's own words if it said no.
    #[must_use]
    pub fn why(&self) -> String {
        let readiness = self.readiness();
        let trouble = self.trouble().map(|trouble| trouble.text);
        match (readiness, trouble) {
            (Readiness::Ready, text) => self.serving(text),
            (Readiness::Draining, _) => "draining: this node is shutting down".to_owned(),
            (Readiness::Starting, None) => "waiting for the store: it has not been reached yet".to_owned(),
            (Readiness::Starting, Some(text)) => format!("waiting for the store: {text}"),
            (Readiness::InboxSilent, _) => "this node does not hear the others; it is subscribing again".to_owned(),
            (Readiness::StoreUnavailable | Readiness::StoreRefuses, text) => {
                let text = text.unwrap_or_else(|| "the store gives no answer".to_owned());
                format!("{text}; sockets stay open, and no session has a controller until this ends")
            }
        }
    }
}
