//! What is around the agent: its flags, its build, its deployment, and the tests' own tools.

#[allow(dead_code)] // each area uses a part
#[path = "../network/https/certs.rs"]
mod certs;
mod cli;
mod deploy;
#[allow(dead_code)] // each area uses a part
#[path = "../network/https/front.rs"]
mod front;
mod size_gate;
mod soak;
mod static_build;
#[path = "../support/mod.rs"]
mod support;
mod support_ledger_selftest;
mod support_selftest;
mod support_server_selftest;
