//! The data on the wire: frames, close codes, error codes and session data. The rules are in [`crate::control`].

mod close;
mod error_code;
mod frame;
mod session_data;

pub use close::CloseReason;
pub use error_code::ErrorCode;
pub use frame::{Flow, Frame, FrameType, Malformed, PROTOCOL_VERSION, RELAY_CLIENT_ID, outgoing};
pub use session_data::SessionData;
