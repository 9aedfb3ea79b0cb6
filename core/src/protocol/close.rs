//! The table of close codes (docs/protocol.md, "Close codes").

/// Why the relay ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The upgrade request names no session.
    SessionIdRequired,
    /// The session is unknown, or has ended.
    SessionNotFound,
    /// The session reached its time to live or its greatest age.
    SessionExpired,
    /// The session was deleted.
    SessionDeleted,
    /// The session has its greatest number of clients.
    SessionFull,
    /// The same client resumed on a newer socket.
    Evicted,
    /// The handshake names a protocol version that this relay does not speak.
    UnsupportedVersion,
    /// The request comes from a browser page whose origin is not allowed.
    OriginNotAllowed,
    /// A frame is over the size limit.
    FrameTooBig,
    /// The socket gave no sign of life for two ping intervals.
    Silent,
    /// The node shuts down. The client reconnects at once, to any other node.
    Drain,
    /// The queue of the socket is full, because the client reads too slowly.
    SlowReader,
    /// The node has its greatest number of sockets.
    Overloaded,
    /// The relay cannot reach its store.
    StoreUnavailable,
    /// The relay has an internal fault.
    Internal,
}

impl CloseReason {
    /// Every reason, for tables, metrics and their tests.
    pub const ALL: [Self; 15] = [
        Self::SessionIdRequired,
        Self::SessionNotFound,
        Self::SessionExpired,
        Self::SessionDeleted,
        Self::SessionFull,
        Self::Evicted,
        Self::UnsupportedVersion,
        Self::OriginNotAllowed,
        Self::FrameTooBig,
        Self::Silent,
        Self::Drain,
        Self::SlowReader,
        Self::Overloaded,
        Self::StoreUnavailable,
        Self::Internal,
    ];

    /// The WebSocket close code (RFC 6455, section 7.4).
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::SessionIdRequired
            | Self::SessionNotFound
            | Self::SessionExpired
            | Self::SessionDeleted
            | Self::SessionFull
            | Self::Evicted
            | Self::UnsupportedVersion
            | Self::OriginNotAllowed => 1008,
            Self::Silent => 1001,
            Self::FrameTooBig => 1009,
            Self::Internal => 1011,
            Self::Drain => 1012,
            Self::SlowReader | Self::Overloaded | Self::StoreUnavailable => 1013,
        }
    }

    /// The reason as the client reads it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::SessionIdRequired => "Session ID required",
            Self::SessionNotFound => "Session not found",
            Self::SessionExpired => "Session expired",
            Self::SessionDeleted => "Session deleted",
            Self::SessionFull => "Session is full",
            Self::Evicted => "Evicted: the client resumed on another connection",
            Self::UnsupportedVersion => "Protocol version not supported",
            Self::OriginNotAllowed => "Origin not allowed",
            Self::FrameTooBig => "Frame too big",
            Self::Silent => "Nothing heard for two ping intervals",
            Self::Drain => "Service restart: reconnect now",
            Self::SlowReader => "Too slow to read: try again later",
            Self::Overloaded => "Too many connections: try again later",
            Self::StoreUnavailable => "Store unavailable: try again later",
            Self::Internal => "Internal error",
        }
    }

    /// Whether the client may come back to its place (docs/protocol.md, "Leaving and coming back").
    #[must_use]
    pub const fn keeps_place(self) -> bool {
        match self {
            Self::Drain | Self::Silent | Self::SlowReader | Self::FrameTooBig => true,
            Self::StoreUnavailable | Self::Overloaded | Self::Internal => true,
            Self::SessionIdRequired
            | Self::SessionNotFound
            | Self::SessionExpired
            | Self::SessionDeleted
            | Self::SessionFull
            | Self::Evicted
            | Self::UnsupportedVersion
            | Self::OriginNotAllowed => false,
        }
    }

    /// The value of the `reason` label in metrics and logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::SessionIdRequired => "session_id_required",
            Self::SessionNotFound => "session_not_found",
            Self::SessionExpired => "session_expired",
            Self::SessionDeleted => "session_deleted",
            Self::SessionFull => "session_full",
            Self::Evicted => "evicted",
            Self::UnsupportedVersion => "unsupported_version",
            Self::OriginNotAllowed => "origin_not_allowed",
            Self::FrameTooBig => "frame_too_big",
            Self::Silent => "silent",
            Self::Drain => "drain",
            Self::SlowReader => "slow_reader",
            Self::Overloaded => "overloaded",
            Self::StoreUnavailable => "store_unavailable",
            Self::Internal => "internal",
        }
    }
}
