//! The rules of docs/protocol.md, "Roles": each by an example, and all of them together in a simulated world.

#![allow(
    clippy::large_enum_variant,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test stops at the first surprise, and clones what it needs; its helpers are nobody's API"
)]

mod rules {
    mod claims;
    mod client;
    mod forgotten;
    mod found;
    mod giving_up;
    mod histories;
    mod machine;
    mod properties;
    mod scene;
    mod world;

    #[allow(dead_code, reason = "shared with the other tests, and not all of it needed here")]
    #[path = "../it/support/old_script.rs"]
    mod old_script;
    #[allow(dead_code, reason = "shared with the simulator, and not all of it needed here")]
    #[path = "../sim/store.rs"]
    mod store;
}
