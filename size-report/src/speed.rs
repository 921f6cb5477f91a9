//! Speed: records a second and CPU a record, beside the floor of the same run: a disk
//! that does nothing but flush, an HTTP client that does nothing but send.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use rustix::fs::OFlags;

use crate::flags::Flags;
use crate::harness::{FLIGHT, Harness, Load, ONE, RECORD, SDK, Until, record};
use crate::support::sender::block_on;
use crate::support::server::MainServer;
use crate::support::temp_folder;
use crate::table::{Figure, Figures, Unit};

/// How long one in flight is sent, and then the disk's flushes are, at a time.
const TURN: Duration = Duration::from_millis(500);
/// Bytes of one of LMDB's pages.
const PAGE: usize = 4096;
/// Pages of the floor's file, whose blocks are written already.
const PAGES: u64 = 2048;
/// LMDB's two meta pages come first.
const META: u64 = 2;

/// As long as the agent's.
const KEY: &str = "\"0123456789abcdef-1234567890123456789\"";

/// Ingest in the shapes of spec 9, each with a fresh agent.
pub fn ingest(agent: &Path, flags: &Flags) -> Result<Figures, String> {
    let time = Duration::from_secs(if flags.quick { 2 } else { 5 });
    let mut figures = Vec::new();
    for (name, shape) in [
        ("ingest/64 in flight on 4 channels, ", FLIGHT),
        ("ingest/32 in flight, a channel a record, ", SDK),
    ] {
        let load = Harness::start(agent, &[]).send(shape, Until::Time(time))?;
        figures.extend(rates(name, &load));
    }
    // In turn: the disk is not the same from one second to the next.
    let folder = temp_folder();
    let failed = |error| format!("{}: {error}", folder.path().display());
    let disk = written_file(folder.path()).map_err(failed)?;
    let harness = Harness::start(agent, &[]);
    let mut load = harness.send(ONE, Until::Time(TURN))?;
    let mut floor = commits(&disk).map_err(failed)?;
    for _ in 0..if flags.quick { 3 } else { 10 } {
        load = load.and(harness.send(ONE, Until::Time(TURN))?);
        floor = floor.and(commits(&disk).map_err(failed)?);
    }
    figures.extend(rates("ingest/1 in flight, ", &load));
    figures.extend(beside("ingest/", &load, "the disk's two flushes", &floor));
    Ok(figures)
}

/// Replay, and a bare client against the same server, before and after it.
pub fn replay(agent: &Path, flags: &Flags) -> Result<Figures, String> {
    let count = if flags.quick { 20_000 } else { 100_000 };
    let mut harness = Harness::start(agent, &[]);
    let sent = harness.send(FLIGHT, Until::Records(count))?.records;
    let before = bare_client(count / 4)?;
    let replayed = harness.replay(sent)?;
    let floor = before.and(bare_client(count / 4)?);
    let mut figures = rates("replay/", &replayed);
    figures.extend(beside("replay/", &replayed, "a bare hyper client", &floor));
    Ok(figures)
}

/// Records a second, and the agent's CPU a record.
pub fn rates(name: &str, load: &Load) -> Figures {
    let cpu = load
        .cpu
        .map(|cpu| cpu.as_secs_f64() * 1e6 / load.records as f64);
    vec![
        Figure::once(format!("{name}records"), Unit::PerSecond, Some(load.rate())),
        Figure::once(format!("{name}CPU a record"), Unit::Micros, cpu),
    ]
}

/// The floor's records a second, and the agent's as a part of it.
fn beside(part: &str, load: &Load, name: &str, floor: &Load) -> [Figure; 2] {
    let ratio = Some(load.rate() / floor.rate());
    [
        Figure::once(format!("{part}{name}"), Unit::PerSecond, Some(floor.rate())),
        Figure::once(format!("{part}of {name}"), Unit::Ratio, ratio),
    ]
}

/// A file whose blocks are written already; and once more, to flush with each write.
fn written_file(folder: &Path) -> io::Result<[File; 2]> {
    let file = tempfile::NamedTempFile::new_in(folder)?;
    let flag = OFlags::DSYNC.bits().cast_signed();
    let flushing = File::options()
        .write(true)
        .custom_flags(flag)
        .open(file.path())?;
    file.as_file()
        .write_all_at(&vec![1; PAGE * PAGES as usize], 0)?;
    file.as_file().sync_all()?;
    Ok([file.into_file(), flushing])
}

/// What LMDB does for a commit, again and again: a page and a flush, a meta page and a
/// flush.
fn commits([data, meta]: &[File; 2]) -> io::Result<Load> {
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < TURN {
        count += 1;
        let page = META + count % (PAGES - META);
        data.write_all_at(&[2; PAGE], page * PAGE as u64)?;
        data.sync_data()?;
        meta.write_all_at(&[3; PAGE], count % META * PAGE as u64)?;
    }
    Ok(Load::since(start, count, None))
}

/// hyper on one connection, one request in flight: what a replay without a store
/// would take.
fn bare_client(requests: u64) -> Result<Load, String> {
    let server = MainServer::new_up();
    server.forget_requests();
    let posted = block_on(post(server.port(), requests));
    posted.map_err(|error| format!("the bare client: {error}"))
}

async fn post(port: u16, requests: u64) -> Result<Load, Box<dyn std::error::Error>> {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let connected = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut client, connection) = connected?;
    tokio::spawn(connection);
    let record = record(0, RECORD).json_data;
    let record = String::from_utf8_lossy(&record);
    let body = format!("{{\"pipelines\":[\"audit\",\"orders\"],\"log_data\":{record}}}");
    let body = Bytes::from(body);
    let start = Instant::now();
    for _ in 0..requests {
        let request = Request::post("/log")
            .header("host", "127.0.0.1")
            .header("content-type", "application/json")
            .header("datanadhi-api-key", "sample-api-key")
            .header("idempotency-key", KEY)
            .header("user-agent", "size-report")
            .body(Full::new(body.clone()))?;
        client.ready().await?;
        let answer = client.send_request(request).await?;
        answer.into_body().collect().await?;
    }
    Ok(Load::since(start, requests, None))
}
