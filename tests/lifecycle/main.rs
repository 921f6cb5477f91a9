//! From the first system call to the exit code (spec 5).

mod activation;
mod alone;
mod events;
mod exit_race;
mod failed_start;
mod leaving;
mod logs;
mod name;
mod owner;
mod places;
mod signals;
mod socket;
mod standby;
mod start;
mod stdout_closed;
#[path = "../support/mod.rs"]
mod support;
