//! A fleet of agents that recovers together, on virtual time.
#![allow(dead_code)] // the test and the example each use a part

pub mod hot;
pub mod play;
pub mod report;
pub mod rules;
pub mod server;
pub mod tally;
