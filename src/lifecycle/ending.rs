//! The last line of a life, and in which session it is.

use std::sync::Arc;
use std::time::Instant;

use super::agent::Lifecycle;
use super::{End, process};
use crate::error::Error;
use crate::events::Events;
use crate::folder::Folder;
use crate::session::Session;

/// Leaves the reason of an agent that ends before its life has begun: its starter may
/// throw stderr away.
pub(super) fn fails_to_start(
    folder: &Arc<Folder>,
    events: &Events,
    start: Instant,
    error: Error,
) -> Error {
    if folder.is_in_place() {
        events.log_to(Session::of_failure(folder).agent_log());
    }
    let end = End::Failed(error.clone());
    summarise(events, &end, start, &Counts::default());
    error
}

/// Has an agent that found no store to open add its line to the session of the failure
/// before it, in place of one of its own.
pub(super) fn share_session(life: &Lifecycle, session: &Session, error: &Error) {
    let failed = matches!(error, Error::CannotCreate(_)) && !life.store.status().open;
    if failed
        && life.folder.is_in_place()
        && let Some(before) = session.failure_before()
        && session.remove()
    {
        life.events.log_to(before.agent_log());
    }
}

/// What has become of a life's records.
#[derive(Default)]
pub(super) struct Counts {
    buffered: u64,
    delivered: u64,
    set_aside: u64,
    /// Not known before the store is open.
    left: Option<u64>,
}

impl Counts {
    pub(super) fn of(life: &Lifecycle) -> Counts {
        let (delivered, set_aside) = life.replayer.totals();
        let status = life.store.status();
        Counts {
            buffered: life.admission.stored(),
            delivered,
            set_aside,
            left: status.open.then_some(status.count),
        }
    }
}

pub(super) fn summarise(events: &Events, end: &End, start: Instant, counts: &Counts) {
    let reason = match end {
        End::Drained => "drained".to_owned(),
        End::Signal(name) => (*name).to_owned(),
        End::Failed(error) => error.to_string(),
    };
    let mut fields = vec![
        ("reason", (&reason).into()),
        ("buffered", counts.buffered.into()),
        ("delivered", counts.delivered.into()),
        ("set_aside", counts.set_aside.into()),
        ("left", counts.left.into()),
        ("seconds", start.elapsed().as_secs().into()),
        ("peak_rss_kib", process::peak_rss_kib().into()),
    ];
    if let End::Failed(error @ Error::CannotCreate(_)) = end {
        // Last: a session of failures is known by it.
        fields.push(("exit_code", u64::from(error.exit_code()).into()));
    }
    events.emit("agent_stopped", &fields);
}
