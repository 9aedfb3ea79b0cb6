//! The table of `rejected` codes (docs/protocol.md, "Refusals").

/// Why the relay refused one frame. The connection stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The frame is not a JSON object with a string `type`, has a member of the envelope twice or of a wrong type, or
    /// has an invalid direction.
    MalformedFrame,
    /// The frame nests deeper than the relay passes on.
    NestedTooDeep,
    /// The frame is binary.
    BinaryFrame,
    /// The frame's type is one that only the relay may send.
    ReservedType,
    /// Only the controller may send this frame.
    NotActive,
    /// The frame belongs to an epoch that is over, or names a client that is no longer the controller.
    StaleEpoch,
    /// Another client has control, under `first_come_first_served`.
    ControlHeld,
    /// Another claim waits for the controller's decision, or control is moving at the moment.
    ControlPending,
    /// Another client has control, under `deny_both`.
    ControlDenied,
    /// The frame declines an offer or a request that does not exist.
    NothingPending,
    /// The handshake is a second one, or comes after other frames.
    HandshakeRefused,
    /// The relay can decide nothing now: the store is away, or may have lost the newest grant of control.
    StoreUnavailable,
}

impl ErrorCode {
    /// Every code, for tables, metrics and their tests.
    pub const ALL: [Self; 12] = [
        Self::MalformedFrame,
        Self::NestedTooDeep,
        Self::BinaryFrame,
        Self::ReservedType,
        Self::NotActive,
        Self::StaleEpoch,
        Self::ControlHeld,
        Self::ControlPending,
        Self::ControlDenied,
        Self::NothingPending,
        Self::HandshakeRefused,
        Self::StoreUnavailable,
    ];

    /// The code on the wire and in metrics. Stable.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::MalformedFrame => "malformed_frame",
            Self::NestedTooDeep => "nested_too_deep",
            Self::BinaryFrame => "binary_frame",
            Self::ReservedType => "reserved_type",
            Self::NotActive => "not_active",
            Self::StaleEpoch => "stale_epoch",
            Self::ControlHeld => "control_held",
            Self::ControlPending => "control_pending",
            Self::ControlDenied => "control_denied",
            Self::NothingPending => "nothing_pending",
            Self::HandshakeRefused => "handshake_refused",
            Self::StoreUnavailable => "store_unavailable",
        }
    }

    /// One sentence for the person who reads the client's log.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::MalformedFrame => "A frame is one JSON object with a string \"type\"; this one was dropped.",
            Self::NestedTooDeep => "The frame nests deeper than 128 levels; it was dropped.",
            Self::BinaryFrame => "The relay carries text frames only; send JSON as text.",
            Self::ReservedType => "Only the relay sends frames of this type.",
            Self::NotActive => "Only the active client may send this; ask for control first.",
            Self::StaleEpoch => "Control has changed hands since; wait for your role and try again.",
            Self::ControlHeld => "Another client is in control; take it over or ask for it.",
            Self::ControlPending => "Another request for control is being decided; try again later.",
            Self::ControlDenied => "Another client is in control, and this session grants no requests meanwhile.",
            Self::NothingPending => "There is no such offer or request any more.",
            Self::HandshakeRefused => "The handshake is the first frame of a connection, once.",
            Self::StoreUnavailable => "The relay cannot reach its store, so nobody can drive; try again later.",
        }
    }
}
