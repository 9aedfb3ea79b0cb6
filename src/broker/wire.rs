//! The bytes that nodes exchange: many messages in one publication, with the clients' frames unchanged.
//!
//! A publication is `0xFF`, the version of the format, the signature if the version is 2, a [`Head`], then one [`Entry`]
//! after another, each frame's text right after its entry. `0xFF` never occurs in UTF-8, so that no client library takes the publication for text and
//! validates it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::seal::{Forged, SIGNATURE, Seal};
use crate::broker::Route;
use crate::ids::{NodeId, SessionId};

const UNSIGNED: [u8; 2] = [0xFF, 1];
const SIGNED: [u8; 2] = [0xFF, 2];

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

/// The reason why a publication is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// No node of this version wrote these bytes.
    Garbled,
    /// No node of this cluster wrote them.
    Forged(Forged),
}

/// Writes items for `to` into as few publications as possible.
pub(super) fn encode(seal: &Seal, to: &NodeId, head: &Head, items: &[Item]) -> Vec<Bytes> {
    let mut full = Vec::new();
    let mut out = begin(seal, head, items);
    let mut empty = true;
    for item in items {
        if !empty && out.len() + item.text.len() > FULL {
            full.push(end(seal, to, std::mem::replace(&mut out, begin(seal, head, &[]))));
        }
        put(&mut out, &item.entry);
        out.extend_from_slice(&item.text);
        empty = false;
    }
    full.push(end(seal, to, out));
    full
}

fn begin(seal: &Seal, head: &Head, items: &[Item]) -> Vec<u8> {
    let size: usize = items.iter().map(|item| item.text.len() + 96).sum();
    let mut out = Vec::with_capacity(128 + size.min(FULL));
    if seal.signs() {
        out.extend_from_slice(&SIGNED);
        out.extend_from_slice(&[0; SIGNATURE]);
    } else {
        out.extend_from_slice(&UNSIGNED);
    }
    put(&mut out, head);
    out
}

fn end(seal: &Seal, to: &NodeId, mut out: Vec<u8>) -> Bytes {
    let start = SIGNED.len() + SIGNATURE;
    if let Some(signature) = out.get(start..).and_then(|content| seal.sign(to, content)) {
        out[SIGNED.len()..start].copy_from_slice(&signature);
    }
    out.into()
}

fn put(out: &mut Vec<u8>, value: &impl Serialize) {
    let taken = std::mem::take(out);
    *out = postcard::to_extend(value, taken).expect("plain data in memory can always be serialized");
}

/// Reads a publication to the node `here`: its head and its items, whose texts are slices of `publication`.
pub(super) fn decode(seal: &Seal, here: &NodeId, publication: Bytes) -> Result<(Head, Items), Refused> {
    let (signature, content) = match publication.strip_prefix(&SIGNED) {
        Some(rest) => rest.split_first_chunk::<SIGNATURE>().map(|(signature, content)| (Some(signature), content)),
        None => publication.strip_prefix(&UNSIGNED).map(|content| (None, content)),
    }
    .ok_or(Refused::Garbled)?;
    seal.check(here, signature.map(|bytes| &bytes[..]), content).map_err(Refused::Forged)?;
    let (head, rest) = postcard::take_from_bytes(content).map_err(|_| Refused::Garbled)?;
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
    fn take(&mut self) -> Result<Item, Refused> {
        let (entry, rest) =
            postcard::take_from_bytes::<Entry>(&self.publication[self.at..]).map_err(|_| Refused::Garbled)?;
        let start = self.publication.len() - rest.len();
        let length = if let Entry::Frame { length, .. } = entry { length as usize } else { 0 };
        if length > rest.len() {
            return Err(Refused::Garbled);
        }
        self.at = start + length;
        Ok(Item { entry, text: self.publication.slice(start..self.at) })
    }
}

impl Iterator for Items {
    type Item = Result<Item, Refused>;

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

    fn here() -> NodeId {
        NodeId::from_text("b@1")
    }

    fn signing() -> Seal {
        Seal::of(Some(&"0123456789abcdef".parse().expect("a secret")))
    }

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
        [Seal::default(), signing()].iter().for_each(survive_a_round_trip);
    }

    fn survive_a_round_trip(seal: &Seal) {
        let mut items: Vec<Item> = (1..2_000).map(|number| frame(number, &[b'x'; 400])).collect();
        items.push(Entry::Changed { number: 2_000, session: SessionId::random(), version: 5 }.into());
        items.push(frame(2_001, &vec![b'y'; 2 * FULL]));
        items.push(Entry::RecentStates { number: 2_002, session: SessionId::random(), states: vec![1, 2] }.into());
        items.push(Entry::Last { number: 2_002 }.into());
        let publications = encode(seal, &here(), &head(), &items);
        assert!(publications.len() > 2 && publications.len() < 8);
        let mut read = Vec::new();
        for publication in publications {
            let (from, items) = decode(seal, &here(), publication).expect("readable");
            assert_eq!(from, head());
            read.extend(items.map(|item| item.expect("readable")));
        }
        assert!(read == items);
    }

    #[test]
    fn a_text_frame_is_not_copied() {
        let seal = signing();
        let publication = encode(&seal, &here(), &head(), &[frame(1, b"{}")]).remove(0);
        let within = publication.as_ptr_range();
        let item =
            decode(&seal, &here(), publication.clone()).expect("readable").1.next().expect("one").expect("readable");
        assert!(within.contains(&item.text.as_ptr()));
    }

    #[test]
    fn a_publication_that_was_changed_is_refused() {
        let publication = encode(&signing(), &here(), &head(), &[frame(1, b"{}")]).remove(0);
        for at in 0..publication.len() {
            let mut changed = publication.to_vec();
            changed[at] ^= 1;
            let refused = decode(&signing(), &here(), changed.into()).err();
            assert_eq!(refused, Some(if at < 2 { Refused::Garbled } else { Refused::Forged(Forged::WronglySigned) }));
        }
        let unsigned = encode(&Seal::default(), &here(), &head(), &[frame(1, b"{}")]).remove(0);
        let refused = decode(&signing(), &here(), unsigned).err();
        assert_eq!(refused, Some(Refused::Forged(Forged::Unsigned)));
        assert!(decode(&Seal::default(), &here(), publication).is_ok(), "without a secret nothing is checked");
    }

    proptest! {
        #[test]
        fn no_input_makes_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200) {
            let plain = Seal::default();
            for seal in [&plain, &signing()] {
                for start in [&UNSIGNED[..], &SIGNED, &encode(seal, &here(), &head(), &[frame(1, b"{}")])[0][..cut.min(40)]] {
                    let garbage: Bytes = [start, &bytes[..]].concat().into();
                    prop_assert!(decode(&signing(), &here(), garbage.clone()).is_err());
                    if let Ok((_, items)) = decode(&plain, &here(), garbage) {
                        prop_assert!(items.count() <= 400);
                    }
                }
            }
        }

        /// Announced lengths that no publication has: of texts, of lists, of names.
        #[test]
        fn an_announced_length_is_not_believed(announced in any::<u64>(), entry in 0_u8..8) {
            let mut out = begin(&Seal::default(), &head(), &[]);
            out.push(entry);
            put(&mut out, &announced);
            put(&mut out, &announced);
            let (_, items) = decode(&Seal::default(), &here(), out.into()).expect("a head");
            prop_assert!(items.count() <= 2);
        }
    }
}
