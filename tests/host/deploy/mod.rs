//! The examples of deployment in `tests/examples/deploy/`, as they stand in their files:
//! only the paths, the server's URL and the user are those of this machine.
#![cfg(target_os = "linux")]

mod application;
mod backlog;
mod containers;
mod units;

use std::time::Duration;

pub const DEADLINE: Duration = Duration::from_secs(60);

/// An example's text.
pub fn example(name: &str) -> String {
    let path = format!(
        "{}/tests/examples/deploy/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The values of a unit file's lines `name=…`.
pub fn values<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    let lines = unit
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    lines.collect()
}
