//! The bytes that nodes exchange: many messages in one publication, with the clients' frames unchanged.
//!
//! A publication is `0xFF`, the version of the format, a [`Head`], then one [`Entry`] after another, each frame's text
//! right after its entry. `0xFF` never occurs in UTF-8, so that no client library takes the publication for text and
//! validates it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::broker::Route;
use crate::ids::{NodeId, SessionId};

const MARK: [u8; 2] = [0xFF, 1];

/// The usual largest size of one publication. A single frame may be larger.
const FULL: usize = 256 * 1024;

/// The data that all entries of a publication share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The sender.
    pub(super) from: NodeId,
    /// The id of the link between these two nodes.
    pub(super) link: u64,
    /// When the oldest entry was published, in microseconds of the sender's wall clock.
    pub(super) sent_at: u64,
}

/// One entry of a publication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Entry {
    /// [`crate::broker::Body::Changed`].
    Changed { number: u64, session: SessionId, version: u64 },
    /// [`crate::broker::Body::Frame`] with a text of this many bytes.
    Frame { number: u64, session: SessionId, route: Route, length: u32 },
    /// [`crate::broker::Body::RecentStates`].
    RecentStates { number: u64, session: SessionId, states: Vec<u64> },
    /// The last number on this link.
    Last { number: u64 },
    /// The sender of this entry misses these numbers of the receiver's link.
    Missed { link: u64, from: u64, to: u64 },
    /// The sender of this entry knows that the receiver misses these numbers.
    Noted { link: u64, from: u64, to: u64 },
    /// A probe, reported to the caller that waits for it.
    Probe { token: u64 },
}

/// An entry with its text if it is a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) entry: Entry,
    pub(super) text: Bytes,
}

impl From<Entry> for Item {
    fn from(entry: Entry) -> Self {
        Self { entry, text: Bytes::new() }
    }
}

/// The error for bytes that no node of this version wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a publication that cannot be read")]
pub(super) struct Garbled;

/// Writes items into as few publications as possible.
pub(super) fn encode(head: &Head, items: &[Item]) -> Vec<Bytes> {
    let mut full = Vec::new();
    let mut out = begin(head, items);
    let mut empty = true;
    for item in items {
        if !empty && out.len() + item.text.len() > FULL {
            full.push(std::mem::replace(&mut out, begin(head, &[])).into());
        }
        put(&mut out, &item.entry);
        out.extend_from_slice(&item.text);
        empty = false;
    }
    full.push(out.into());
    full
}

fn begin(head: &Head, items: &[Item]) -> Vec<u8> {
    let size: usize = items.iter().map(|item| item.text.len() + 96).sum();
    let mut out = Vec::with_capacity(128 + size.min(FULL));
    out.extend_from_slice(&MARK);
    put(&mut out, head);
    out
}

fn put(out: &mut Vec<u8>, value: &impl Serialize) {
    let taken = std::mem::take(out);
    *out = postcard::to_extend(value, taken).expect("plain data in memory can always be serialized");
}

/// Reads a publication: its head and its items, whose texts are slices of `publication`.
pub(super) fn decode(publication: Bytes) -> Result<(Head, Items), Garbled> {
    let rest = publication.strip_prefix(&MARK).ok_or(Garbled)?;
    let (head, rest) = postcard::take_from_bytes(rest).map_err(|_| Garbled)?;
    let at = publication.len() - rest.len();
    Ok((head, Items { publication, at }))
}

/// The items of a publication. The iterator ends at the first item that cannot be read.
#[derive(Debug)]
pub(super) struct Items {
    publication: Bytes,
    at: usize,
}

impl Items {
    fn take(&mut self) -> Result<Item, Garbled> {
        let (entry, rest) = postcard::take_from_bytes::<Entry>(&self.publication[self.at..]).map_err(|_| Garbled)?;
        let start = self.publication.len() - rest.len();
        let length = if let Entry::Frame { length, .. } = entry { length as usize } else { 0 };
        if length > rest.len() {
            return Err(Garbled);
        }
        self.at = start + length;
        Ok(Item { entry, text: self.publication.slice(start..self.at) })
    }
}

impl Iterator for Items {
    type Item = Result<Item, Garbled>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.publication.len() {
            return None;
        }
        let item = self.take();
        if item.is_err() {
            self.at = self.publication.len();
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::broker::{Kind, Target};
    use crate::ids::{ConnectionId, Epoch, Seq};
    use crate::random::Random;

    fn head() -> Head {
        Head { from: NodeId::from_text("a@1"), link: 3, sent_at: 4 }
    }

    fn frame(number: u64, text: &[u8]) -> Item {
        let source = ConnectionId::from_number(9);
        let target = Target::Only(vec![source]);
        let route = Route { source, epoch: Epoch(1), seq: Seq(2), state_hash: 0, target, kind: Kind::State };
        let length = u32::try_from(text.len()).expect("small");
        let session = SessionId::random();
        Item { entry: Entry::Frame { number, session, route, length }, text: Bytes::copy_from_slice(text) }
    }

    #[test]
    fn messages_survive_a_round_trip_over_several_publications() {
        let mut items: Vec<Item> = (1..2_000).map(|number| frame(number, &[b'x'; 400])).collect();
        items.push(Entry::Changed { number: 2_000, session: SessionId::random(), version: 5 }.into());
        items.push(frame(2_001, &vec![b'y'; 2 * FULL]));
        items.push(Entry::RecentStates { number: 2_002, session: SessionId::random(), states: vec![1, 2] }.into());
        items.push(Entry::Last { number: 2_002 }.into());
        let publications = encode(&head(), &items);
        assert!(publications.len() > 2 && publications.len() < 8);
        let mut read = Vec::new();
        for publication in publications {
            let (from, items) = decode(publication).expect("readable");
            assert_eq!(from, head());
            read.extend(items.map(|item| item.expect("readable")));
        }
        assert!(read == items);
    }

    #[test]
    fn a_text_frame_is_not_copied() {
        let publication = encode(&head(), &[frame(1, b"{}")]).remove(0);
        let within = publication.as_ptr_range();
        let item = decode(publication.clone()).expect("readable").1.next().expect("one").expect("readable");
        assert!(within.contains(&item.text.as_ptr()));
    }

    proptest! {
        #[test]
        fn no_input_makes_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200) {
            for start in [&MARK[..], &encode(&head(), &[frame(1, b"{}")])[0][..cut.min(40)]] {
                let garbage: Bytes = [start, &bytes[..]].concat().into();
                if let Ok((_, items)) = decode(garbage) {
                    prop_assert!(items.count() <= 400);
                }
            }
        }
    }
}
