//! What Linux tells about a running agent. `None` where there is no `/proc`, or
//! it does not tell this user.

use std::time::Duration;

use super::agent::Agent;

/// Of `/proc/<pid>/stat`, whatever the kernel's own tick (proc(5): USER_HZ).
const TICK: Duration = Duration::from_millis(10);

impl Agent {
    /// CPU time so far, of user and system.
    pub fn cpu_time(&self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        // The name in brackets may hold anything; fields 14 and 15 count from 1.
        let rest = stat.rsplit_once(") ")?.1;
        let mut times = rest.split(' ').skip(11);
        let user: u32 = times.next()?.parse().ok()?;
        let system: u32 = times.next()?.parse().ok()?;
        Some(TICK * (user + system))
    }

    /// Waits until a signal has stopped it.
    pub fn wait_stopped(&self, deadline: Duration) {
        let path = format!("/proc/{}/stat", self.pid());
        super::wait::until(deadline, "a process that has stopped", || {
            let stat = std::fs::read_to_string(&path).expect("its state");
            stat.rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with('T'))
        });
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> Option<usize> {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).ok()?;
        Some(open.count())
    }

    /// Memory that is the process's own, in KiB: not the files it has mapped.
    pub fn anonymous_kib(&self) -> Option<u64> {
        self.status_kib("RssAnon:")
    }
}
