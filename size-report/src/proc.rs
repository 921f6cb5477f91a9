//! What Linux tells about a running process, in `/proc`. None where there is no
//! `/proc`, or it does not tell this user: the agent is not dumpable, so that
//! another user than root sees neither its maps nor its descriptors.

use std::fs;
use std::time::Duration;

use crate::figures::{Figure, Unit};

/// Of `/proc/<pid>/stat`, whatever the kernel's own tick (proc(5): USER_HZ).
const TICK: Duration = Duration::from_millis(10);

/// What is printed of a process's memory.
pub const FIELDS: [&str; 6] = [
    "RSS",
    "anonymous",
    "file-backed",
    "PSS",
    "private dirty",
    "VmHWM",
];

/// The memory of a process at one moment, in KiB, as in [`FIELDS`].
#[derive(Debug, Clone, Copy)]
pub struct Memory(pub [Option<f64>; FIELDS.len()]);

impl Memory {
    pub fn of(pid: u32) -> Memory {
        let status = read(pid, "status");
        let rollup = read(pid, "smaps_rollup");
        Memory([
            number(&status, "VmRSS:"),
            number(&status, "RssAnon:"),
            number(&status, "RssFile:"),
            number(&rollup, "Pss:"),
            number(&rollup, "Private_Dirty:"),
            number(&status, "VmHWM:"),
        ])
    }

    /// Of each field the larger one.
    pub fn max(self, other: Memory) -> Memory {
        let mut larger = self;
        for (mine, theirs) in larger.0.iter_mut().zip(other.0) {
            *mine = mine
                .zip(theirs)
                .map(|(mine, theirs)| f64::max(mine, theirs));
        }
        larger
    }

    /// One figure for each field, of all samples of one moment.
    pub fn figures(moment: &str, samples: &[Memory]) -> Vec<Figure> {
        FIELDS
            .iter()
            .enumerate()
            .map(|(at, field)| {
                let values: Vec<_> = samples.iter().map(|memory| memory.0[at]).collect();
                Figure::new(format!("memory/{moment}: {field}"), Unit::Kib, &values)
            })
            .collect()
    }
}

/// CPU time of all threads that live, to the nanosecond.
pub fn cpu(pid: u32) -> Option<Duration> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    tasks
        .flatten()
        .map(|task| run_time(&fs::read_to_string(task.path().join("schedstat")).ok()?))
        .sum()
}

/// The same of the thread that asks.
pub fn thread_cpu() -> Option<Duration> {
    run_time(&fs::read_to_string("/proc/thread-self/schedstat").ok()?)
}

/// CPU time of this process, of ended threads too, to the tick.
pub fn own_cpu() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name in brackets may hold anything; fields 14 and 15 count from 1.
    let mut times = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let user: u32 = times.next()?.parse().ok()?;
    let system: u32 = times.next()?.parse().ok()?;
    Some(TICK * (user + system))
}

pub fn threads(pid: u32) -> Option<f64> {
    number(&read(pid, "status"), "Threads:")
}

/// How often the process has gone to sleep by itself, and so was woken.
pub fn wake_ups(pid: u32) -> Option<f64> {
    number(&read(pid, "status"), "voluntary_ctxt_switches:")
}

pub fn descriptors(pid: u32) -> Option<f64> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    Some(open.count() as f64)
}

/// The first number of schedstat: nanoseconds on a CPU.
fn run_time(schedstat: &str) -> Option<Duration> {
    let nanoseconds = schedstat.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

fn read(pid: u32, name: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default()
}

fn number(text: &str, field: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(field))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status = "VmHWM:\t    2912 kB\nVmRSS:\t 2904 kB\nThreads:\t1\n\
                      nonvoluntary_ctxt_switches:\t9\nvoluntary_ctxt_switches:\t12\n";
        let table = [
            ("VmHWM:", Some(2912.0)),
            ("VmRSS:", Some(2904.0)),
            ("Threads:", Some(1.0)),
            ("RssAnon:", None),
        ];
        for (field, value) in table {
            assert_eq!(number(status, field), value, "{field}");
        }
        assert_eq!(run_time("1500 20 3\n"), Some(Duration::from_nanos(1500)));
        assert_eq!(run_time(""), None);
    }

    #[test]
    fn the_larger_of_each_field_and_nothing_where_one_is_unknown() {
        let a = Memory([Some(1.0), Some(5.0), None, Some(2.0), None, Some(3.0)]);
        let b = Memory([Some(4.0), Some(2.0), Some(1.0), Some(2.0), None, Some(9.0)]);
        let larger = [Some(4.0), Some(5.0), None, Some(2.0), None, Some(9.0)];
        assert_eq!(a.max(b).0, larger);
    }
}
