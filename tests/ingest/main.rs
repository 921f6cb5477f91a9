//! What comes in by the socket (spec 3): the adapter, crowds, and clients that misbehave.

mod authority;
mod crowds;
mod fuzz_corpus;
mod hostile_bodies;
mod hostile_connections;
mod hostile_handshakes;
mod hostile_streams;
#[allow(dead_code)] // each area uses a part
#[path = "../fuzz/properties.rs"]
mod properties;
#[path = "../support/mod.rs"]
mod support;
