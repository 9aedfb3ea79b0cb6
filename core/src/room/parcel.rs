//! A frame for several clients.

use bytes::Bytes;

use crate::ids::{ConnectionId, Epoch, Seq};
use crate::protocol::{FrameType, outgoing};

/// A frame for several clients, in the two forms that clients with and without the handshake get.
#[derive(Debug)]
pub(super) struct Parcel {
    /// The text as its sender wrote it.
    text: Bytes,
    /// The text with `epoch` and `seq`, made when first needed.
    numbered: Option<Bytes>,
    pub(super) epoch: Epoch,
    seq: Seq,
    /// The type of the frame.
    pub(super) kind: FrameType,
    /// The source of the state, if a newer state may replace it.
    pub(super) state_of: Option<ConnectionId>,
    /// The hash of the state in the frame.
    pub(super) state_hash: Option<u64>,
}

impl Parcel {
    /// Creates a parcel for a frame that was let through in `epoch` as number `seq` of its sender.
    pub(super) fn new(text: Bytes, kind: FrameType, epoch: Epoch, seq: Seq) -> Self {
        Self { text, numbered: None, epoch, seq, kind, state_of: None, state_hash: None }
    }

    /// Creates a parcel for a state that passes to all.
    pub(super) fn state(text: Bytes, source: ConnectionId, epoch: Epoch, seq: Seq, hash: u64) -> Self {
        let parcel = Self::new(text, FrameType::StateUpdate, epoch, seq);
        Self { state_of: Some(source), state_hash: Some(hash), ..parcel }
    }

    pub(super) fn for_member(&mut self, modern: bool) -> Bytes {
        if !modern {
            return self.text.clone();
        }
        let (text, epoch, seq) = (&self.text, self.epoch, self.seq);
        let number = || outgoing::with_members(text, &[("epoch", epoch.0.into()), ("seq", seq.0.into())]);
        self.numbered.get_or_insert_with(number).clone()
    }
}
