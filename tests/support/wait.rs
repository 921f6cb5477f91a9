//! Waiting for something to become true, with a deadline instead of a sleep.

use std::time::{Duration, Instant};

/// Between two looks.
pub const POLL: Duration = Duration::from_millis(5);

/// Looks until `done` holds; panics with `what` when `deadline` has passed.
pub fn until(deadline: Duration, what: &str, done: impl FnMut() -> bool) {
    assert!(within(deadline, done), "not within {deadline:?}: {what}");
}

/// The same, but says whether it came true.
pub fn within(deadline: Duration, mut done: impl FnMut() -> bool) -> bool {
    some(deadline, || done().then_some(())).is_some()
}

/// Looks until `find` finds something, at most for `deadline`.
pub fn some<T>(deadline: Duration, mut find: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        let last_look = Instant::now() >= end;
        let found = find();
        if found.is_some() || last_look {
            return found;
        }
        std::thread::sleep(POLL);
    }
}
