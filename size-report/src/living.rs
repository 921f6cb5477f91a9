//! Agents that run. Where a panic aborts the tool (as in its release build), no
//! agent is dropped, and would live on by itself.

use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

static LIVING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// An agent that is to end with this process, until this is dropped.
pub struct Living(Option<Pid>);

impl Living {
    pub fn new(pid: u32) -> Living {
        let pid = Pid::from_raw(pid.cast_signed());
        list().extend(pid);
        Living(pid)
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        list().retain(|pid| Some(*pid) != self.0);
    }
}

/// From now on a panic ends the agents, too.
pub fn end_with_a_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        for pid in list().iter() {
            // An error means that it has ended already.
            let _ = kill_process(*pid, Signal::KILL);
        }
    }));
}

fn list() -> std::sync::MutexGuard<'static, Vec<Pid>> {
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}
