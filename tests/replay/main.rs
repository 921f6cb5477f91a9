//! The replay's promises (spec 6, and 5.2 and 5.3), and that what was stored is
//! what arrives (spec 3): the real agent between real clients and a real server.

mod breaks;
mod connection;
mod crash;
mod dispositions;
mod fidelity;
#[path = "../fleet/mod.rs"]
mod fleet;
mod heads;
mod herd;
mod identity;
mod order;
mod patience;
mod probe;
mod refused_calls;
mod rotated_key;
mod set_aside;
mod set_aside_blocked;
mod standby;
#[path = "../support/mod.rs"]
mod support;
mod unreadable;
mod upload;
