//! Showing on the terminal how an outage goes.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::agent::Agent;
use super::ledger::{Ledger, Totals};

/// Between two looks at the agent and the ledger.
const LOOK: Duration = Duration::from_millis(10);
/// Between two lines where lines cannot be rewritten.
const LINE: Duration = Duration::from_secs(1);
/// Between two versions of the rewritten line.
const REWRITE: Duration = Duration::from_millis(100);
/// No ack and no delivery for so long: the play has come to a stop.
const STALLED: Duration = Duration::from_secs(60);

/// Tells the story line by line and keeps an eye on the agent's memory.
pub struct Progress {
    ledger: Arc<Ledger>,
    started: Instant,
    shown: Instant,
    rewrites: bool,
    peak_kib: u64,
}

impl Progress {
    pub fn new(ledger: &Arc<Ledger>) -> Progress {
        Progress {
            ledger: Arc::clone(ledger),
            started: Instant::now(),
            shown: Instant::now(),
            rewrites: std::io::stdout().is_terminal(),
            peak_kib: 0,
        }
    }

    /// A step of the story.
    pub fn say(&mut self, what: &str) {
        let clear = if self.rewrites { "\r\x1b[K" } else { "" };
        let seconds = self.started.elapsed().as_secs_f32();
        print(&format!("{clear}{seconds:5.1} s  {what}\n"));
    }

    /// Shows how things go until `done`; an error names `what` when they go no
    /// further.
    pub fn until(
        &mut self,
        what: &str,
        agent: &mut Agent,
        mut done: impl FnMut(&Totals, &mut Agent) -> bool,
    ) -> Result<(), String> {
        let mut before = (0, 0);
        let mut moved = Instant::now();
        loop {
            let totals = self.ledger.totals();
            self.peak_kib = self.peak_kib.max(agent.hwm_kib().unwrap_or(0));
            // Before `done`, which may be waiting for just this.
            let gone = !agent.is_running();
            if done(&totals, agent) {
                return Ok(());
            }
            let now = (totals.acknowledged, totals.delivered);
            if now != before {
                (before, moved) = (now, Instant::now());
            } else if moved.elapsed() >= STALLED {
                return Err(format!("Nothing moved for {STALLED:?}: {what}."));
            }
            // Unless `done` has started another.
            if gone && !agent.is_running() {
                let stderr = agent.stderr();
                return Err(format!("The agent is gone: {what}.\n{stderr}"));
            }
            self.show(&totals, agent);
            std::thread::sleep(LOOK);
        }
    }

    /// The most memory the agent ever had, in KiB; of several lives, the worst.
    /// 0: this system does not tell.
    pub fn peak_kib(&self) -> u64 {
        self.peak_kib
    }

    fn show(&mut self, totals: &Totals, agent: &Agent) {
        let interval = if self.rewrites { REWRITE } else { LINE };
        if self.shown.elapsed() < interval {
            return;
        }
        self.shown = Instant::now();
        let buffered = totals.acknowledged.saturating_sub(totals.delivered);
        let memory = mebibytes(agent.rss_kib().unwrap_or(0));
        let line = format!(
            "         buffered {buffered:7}   replayed {:7}   agent's memory {memory}",
            totals.delivered
        );
        match self.rewrites {
            true => print(&format!("\r\x1b[K{line}")),
            false => print(&format!("{line}\n")),
        }
    }
}

/// `4.1 MiB`; `unknown` for 0.
pub fn mebibytes(kib: u64) -> String {
    match kib {
        0 => "unknown".to_owned(),
        kib => format!("{:.1} MiB", kib as f64 / 1024.0),
    }
}

/// A closed stdout does not stop the play.
fn print(text: &str) {
    let mut stdout = std::io::stdout();
    let _ = stdout.write_all(text.as_bytes());
    let _ = stdout.flush();
}
