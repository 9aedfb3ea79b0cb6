//! The rules of docs/protocol.md, "Roles": each by an example, and all of them together in a simulated world.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test stops at the first surprise; its helpers are nobody's API"
)]

mod rules {
    mod claims;
    mod forgotten;
    mod found;
    mod giving_up;
    mod scene;
}
