//! The product as its users meet it: real processes, real sockets, real Redis. One binary, so that it is linked once.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test stops at the first surprise; its helpers are nobody's API"
)]

mod announced;
mod backpressure;
mod broker_contract;
mod drain;
mod existing_clients;
mod forged;
mod frames_control;
mod frames_presence;
mod frames_refused;
mod frames_roles;
mod frames_state;
mod frames_wire;
mod late_answers;
mod least_rights;
mod life;
mod load;
mod log;
mod nodes;
mod old_goodbyes;
mod one_world;
mod operator;
mod racing;
mod redis_away;
mod redis_lies;
mod redis_refuses;
mod regions;
mod sessions;
mod sessions_http;
mod simultaneous;
mod slow_reader;
mod store_contract;
mod support;
