//! From the first system call to the exit code (spec 5).

mod agent;
mod ending;
#[cfg(target_os = "linux")]
mod owner;
#[cfg(not(target_os = "linux"))]
mod owner {
    /// Users are changed on Linux alone.
    pub fn become_owner(_base: &std::path::Path) -> bool {
        false
    }
}
mod process;
mod signals;
mod start;

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::{interval_at, sleep_until, timeout};

use crate::cli::{Config, VERSION};
use crate::error::{Error, Result};
use crate::events::{Events, Value};
use crate::folder::Folder;
use crate::ingest::admission::Admission;
use crate::ingest::agent_folder;
use crate::ingest::inherited;
use crate::ingest::listener::{ListenSocket, ListenerHandle};
use crate::ingest::server::Server;
use crate::ingest::service::IngestService;
use crate::limits::{
    IDLE_GRACE, IO_EVENTS_MAX, PROGRESS_INTERVAL, SETTLE_DELAY, STOP_DRAIN, STORE_CLOSE,
};
use crate::memory;
use crate::replay::proxy::Unusable;
use crate::replay::replayer::Replayer;
use crate::session::{self, Session};
use crate::stdout::Stdout;
use crate::store::space::Space;
use crate::store::{self, Close, Writer};
use agent::{Lifecycle, Quiet};
use ending::Counts;
use signals::Signals;

/// Runs the agent until it exits.
///
/// # Errors
/// What ended it, where that was not its own decision.
pub fn run(config: Config) -> Result<()> {
    if config.standby {
        process::reexec_without_tcache();
    }
    // First: its descriptor must not be one of the agent's own.
    let passed = inherited::passed(|name| std::env::var_os(name))?;
    let events = Events::new(Stdout::open());
    process::harden();
    let has_changed_user = owner::become_owner(&config.folder);
    memory::tune_allocator();
    let start = Instant::now();
    // They wait for their handlers: a client that sees the socket may send one, and PID 1
    // would never see what came before (signal(7)).
    signals::block();
    agent_folder::remove_own_stale_link(&config.folder);
    let folder = Arc::new(Folder::open(&config.folder)?);
    let fails = |error: Error| ending::fails_to_start(&folder, &events, start, error);
    if !start::take_lock(&folder, passed.is_some()).map_err(fails)? {
        events.emit("another_agent_serves", &[]);
        return Ok(());
    }
    process::check_descriptors().map_err(fails)?;
    let candidate = store::open::examine(folder.path());
    let (runtime, signals) = runtime().map_err(fails)?;
    let may_link = !config.standby && !has_changed_user;
    let listen_socket = start::open_listen_socket(&folder, passed, may_link).map_err(fails)?;
    // As a task: to wake what block_on itself runs costs a look at the sockets.
    let (writer, store) = Writer::new(Arc::clone(&folder), candidate, events.clone());
    let life = serve(
        config,
        Arc::clone(&folder),
        events,
        start,
        listen_socket,
        (writer, store),
        signals,
    );
    let ended = runtime.block_on(runtime.spawn(life));
    // Before anything else is closed: a successor waits for it.
    folder.unlock();
    ended.unwrap_or_else(|error| Err(Error::DiskFailed(format!("life: {error}"))))
}

/// The runtime, and its signals.
fn runtime() -> Result<(Runtime, Signals)> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_io_events_per_tick(IO_EVENTS_MAX)
        .build()
        .map_err(|error| Error::CannotCreate(format!("runtime: {error}")))?;
    let signals = {
        let _context = runtime.enter();
        Signals::new()?
    };
    Ok((runtime, signals))
}

/// Why the agent ends.
enum End {
    /// Everything is delivered or set aside.
    Drained,
    /// A signal, by its name.
    Signal(&'static str),
    /// The store failed.
    Failed(Error),
}

async fn serve(
    config: Config,
    folder: Arc<Folder>,
    events: Events,
    start: Instant,
    (listen_socket, listener): (ListenSocket, Option<UnixListener>),
    (writer, store): (Writer, store::Handle),
    mut signals: Signals,
) -> Result<()> {
    let admission = Admission::new();
    let service = IngestService::new(store.clone());
    let mut server = Server::new(service, Arc::clone(&admission), events.clone());
    let activated = matches!(listen_socket, ListenSocket::Inherited);
    listener
        .map_or(Ok(()), |listener| server.listen(listener))
        .map_err(|error| {
            let error = Error::CannotCreate(format!("socket: {error}"));
            ending::fails_to_start(&folder, &events, start, error)
        })?;
    let listener = ListenerHandle::new(Arc::clone(&folder), listen_socket, server);
    let asleep = config.standby && !store::has_data(folder.path());
    let mut writing = tokio::spawn(writer.run(asleep));

    let session = Session::new(&folder, SystemTime::now());
    tokio::spawn(prune(Arc::clone(&folder), session.clone(), store.clone()));
    events.log_to(session.agent_log());
    announce(&config, activated, &folder, &events);
    tokio::spawn(listener.clone().watch(events.clone()));
    tokio::spawn(progress(Arc::clone(&folder), events.clone(), store.clone()));
    let replayer = Replayer::new(
        config.route,
        config.api_key,
        store.clone(),
        events.clone(),
        session.clone(),
    );
    let mut life = Lifecycle {
        folder,
        events,
        listener,
        admission,
        store,
        replayer,
        start,
        standby: config.standby,
        quiet: Quiet::new(start),
    };
    memory::release();
    let end = tokio::select! {
        // In this order: a life that is over ends the writer, too.
        biased;
        name = signals.next() => End::Signal(name),
        lived = life.run(asleep) => match lived {
            Ok(()) => End::Drained,
            Err(_) => End::Failed(outcome(&mut writing).await),
        },
        ended = &mut writing => End::Failed(failure(ended)),
    };
    let stopped = stop(&mut life, &end, &mut signals).await;
    if let Err(error) = &stopped {
        ending::share_session(&life, &session, error);
    }
    ending::summarise(&life.events, &end, start, &Counts::of(&life));
    stopped?;
    // What is left may not be on disk.
    if writing.is_finished()
        && let Ok(Err(error)) = writing.await
    {
        return Err(error);
    }
    Ok(())
}

/// What the writer ended with.
async fn outcome(writing: &mut JoinHandle<Result<()>>) -> Error {
    failure(writing.await)
}

fn failure(ended: std::result::Result<Result<()>, tokio::task::JoinError>) -> Error {
    match ended {
        Ok(Err(error)) => error,
        Ok(Ok(())) => Error::Closed,
        Err(error) => Error::DiskFailed(format!("store: {error}")),
    }
}

/// Leaves the folder in order: no socket, no flag, the store closed.
async fn stop(life: &mut Lifecycle, end: &End, signals: &mut Signals) -> Result<()> {
    life.events.emit("grpc_server_stopping", &[]);
    let orderly = async {
        life.listener.lock().close();
        if let End::Drained = end {
            return;
        }
        let drained = async {
            // A newly connected client may be about to call; closing now would look like a
            // failed call.
            life.admission.stop();
            let _ = timeout(IDLE_GRACE, life.admission.wait_until_empty()).await;
            life.admission.stop_all();
            life.admission.wait_until_empty().await;
        };
        let _ = timeout(STOP_DRAIN, drained).await;
        if let End::Signal(_) = end {
            let _ = timeout(STORE_CLOSE, async {
                life.replayer.flush().await;
                life.store.close(Close::Keep).await
            })
            .await;
        }
    };
    tokio::select! {
        () = orderly => {}
        // A second signal: at once. What was acknowledged is on disk.
        _ = signals.next() => {}
    }
    life.folder.lower_flag();
    match end {
        End::Failed(error) => Err(error.clone()),
        End::Drained | End::Signal(_) => Ok(()),
    }
}

fn announce(config: &Config, activated: bool, folder: &Folder, events: &Events) {
    let server = config.route.server().to_string();
    let proxy = config.route.proxy().map(ToString::to_string);
    let path = folder.path().to_string_lossy();
    let mut fields = vec![
        ("version", VERSION.into()),
        ("pid", u64::from(std::process::id()).into()),
        ("folder", (&*path).into()),
        ("health_url", (&server).into()),
        ("standby", config.standby.into()),
        ("activated", activated.into()),
    ];
    if let Some(proxy) = &proxy {
        fields.push(("proxy", proxy.into()));
    }
    events.emit("agent_started", &fields);
    if let Some(Unusable { variable, why }) = &config.ignored_proxy {
        let fields = [("variable", (*variable).into()), ("error", why.into())];
        events.emit("proxy_ignored", &fields);
    }
    if folder.has_go_store() {
        let why = "pebble/ holds records that only the Go agent can read; it is left alone";
        events.emit("go_store_found", &[("note", why.into())]);
    }
}

/// Removes the old sessions. Not before there is a store: a start that fails has no
/// session of its own in the end.
async fn prune(folder: Arc<Folder>, own: Session, store: store::Handle) {
    store.wait_for(|status| status.open).await;
    if folder.is_in_place() {
        session::prune(&folder, &own);
    }
}

/// Says once a minute how things stand, and holds on to nothing that is not
/// needed.
async fn progress(folder: Arc<Folder>, events: Events, store: store::Handle) {
    let start = tokio::time::Instant::now();
    sleep_until(start + SETTLE_DELAY).await;
    memory::release();
    let first = start + PROGRESS_INTERVAL;
    let mut minutes = interval_at(first, PROGRESS_INTERVAL);
    loop {
        minutes.tick().await;
        memory::release();
        let Ok(details) = store.details().await else {
            return;
        };
        let oldest = details.oldest.map_or(String::new(), |nanos| {
            crate::events::rfc3339(UNIX_EPOCH + Duration::from_nanos(nanos))
        });
        let free = Space::of(folder.file()).map_or(0, |space| space.available);
        let fields: [(&str, Value); 4] = [
            ("buffered", store.status().count.into()),
            ("bytes", details.bytes.into()),
            ("oldest", (&oldest).into()),
            ("free_space", free.into()),
        ];
        events.emit("progress", &fields);
    }
}
