//! What the machine itself allows, measured in the same run: the disk's flushes,
//! and an HTTP client that does nothing else.

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

use crate::proc;
use crate::scene::{Arrivals, json};
use crate::support::sender::block_on;
use crate::support::server::MainServer;

/// Bytes of one of LMDB's pages.
const PAGE: usize = 4096;
/// Pages of the file whose blocks are written already.
const WRITTEN: u64 = 2048;
/// How long each way to flush is tried at a time.
const SLICE: Duration = Duration::from_millis(250);
/// LMDB's two meta pages come first.
const META: u64 = 2;

/// The disk below the stores, and what it has done so far.
pub struct Disk {
    /// Pages are written at its end, as in a store that grows.
    growing: File,
    end: u64,
    /// Flushes so far.
    turn: u64,
    /// All its blocks are written.
    written: File,
    /// The same file; each write to it is flushed, as LMDB's meta pages are.
    meta: File,
    done: [(u32, Duration); WAYS.len()],
}

/// How the disk is asked to flush: into which blocks, and whether a meta page
/// follows ("two flushes": what LMDB does for one commit).
pub const WAYS: [(&str, bool, bool); 4] = [
    ("flushes into new blocks", true, false),
    ("flushes into written blocks", false, false),
    ("two flushes, into new blocks", true, true),
    ("two flushes, into written blocks", false, true),
];

impl Disk {
    /// Of the disk that holds `folder`.
    ///
    /// # Errors
    /// Names what failed.
    pub fn new(folder: &Path) -> Result<Disk, String> {
        Disk::open(folder).map_err(|error| format!("{}: {error}", folder.display()))
    }

    fn open(folder: &Path) -> io::Result<Disk> {
        let file = tempfile::NamedTempFile::new_in(folder)?;
        let meta = File::options()
            .write(true)
            .custom_flags(OFlags::DSYNC.bits().cast_signed())
            .open(file.path())?;
        let written = file.into_file();
        written.write_all_at(&vec![1; PAGE * WRITTEN as usize], 0)?;
        written.sync_all()?;
        Ok(Disk {
            growing: tempfile::tempfile_in(folder)?,
            end: 0,
            turn: 0,
            written,
            meta,
            done: [Default::default(); WAYS.len()],
        })
    }

    /// Flushes for a while in each way.
    ///
    /// # Errors
    /// Names what failed.
    pub fn measure(&mut self) -> Result<(), String> {
        for (way, (_, grows, pairs)) in WAYS.iter().enumerate() {
            let start = Instant::now();
            while start.elapsed() < SLICE {
                let flushed = self.flush(*grows, *pairs);
                flushed.map_err(|error| format!("flush: {error}"))?;
                self.done[way].0 += 1;
            }
            self.done[way].1 += start.elapsed();
        }
        Ok(())
    }

    fn flush(&mut self, grows: bool, pairs: bool) -> io::Result<()> {
        self.turn += 1;
        self.end += u64::from(grows);
        let (file, page) = match grows {
            true => (&self.growing, self.end),
            false => (&self.written, META + self.turn % (WRITTEN - META)),
        };
        file.write_all_at(&[2; PAGE], page * PAGE as u64)?;
        file.sync_data()?;
        if pairs {
            self.meta
                .write_all_at(&[3; PAGE], self.turn % META * PAGE as u64)?;
        }
        Ok(())
    }

    /// How often a second it could be done in that way of [`WAYS`].
    pub fn rate(&self, way: usize) -> f64 {
        let (count, time) = self.done[way];
        f64::from(count) / time.as_secs_f64()
    }
}

/// What one request of a bare client takes.
#[derive(Debug, Clone, Copy)]
pub struct Http {
    pub time: Duration,
    pub cpu: Option<Duration>,
}

impl Http {
    /// Of two measurements, one before and one after something else.
    pub fn mean(self, other: Http) -> Http {
        let cpu = self.cpu.zip(other.cpu);
        Http {
            time: (self.time + other.time) / 2,
            cpu: cpu.map(|(one, two)| (one + two) / 2),
        }
    }
}

/// hyper on one connection, one request in flight: what a replay without a
/// store would take.
///
/// # Errors
/// The server did not answer.
pub fn http(delay: Duration, requests: u32) -> Result<Http, String> {
    let mut server = MainServer::new_down();
    server.forget_requests();
    let _arrivals = Arrivals::at(&server, delay);
    server.up();
    let port = server.port();
    // A thread of its own, whose CPU time is not the server's.
    let client = std::thread::spawn(move || block_on(post(port, requests)));
    client.join().map_err(|_| "the bare client has panicked")?
}

async fn post(port: u16, requests: u32) -> Result<Http, String> {
    let text = |error: &dyn std::fmt::Display| format!("the bare client: {error}");
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port));
    let stream = stream.await.map_err(|error| text(&error))?;
    stream.set_nodelay(true).map_err(|error| text(&error))?;
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| text(&error))?;
    tokio::spawn(connection);
    let body = format!(
        "{{\"pipelines\":[\"audit\",\"orders\"],\"log_data\":{}}}",
        json(0, &"x".repeat(160))
    );
    let body = Bytes::from(body);
    let before = proc::thread_cpu();
    let start = Instant::now();
    for _ in 0..requests {
        let request = Request::post("/log")
            .header("host", "127.0.0.1")
            .header("content-type", "application/json")
            .header("datanadhi-api-key", "sample-api-key")
            .header(
                "idempotency-key",
                "\"0123456789abcdef-1234567890123456789\"",
            )
            .header("user-agent", "size-report")
            .body(Full::new(body.clone()))
            .map_err(|error| text(&error))?;
        client.ready().await.map_err(|error| text(&error))?;
        let answer = client.send_request(request).await;
        let answer = answer.map_err(|error| text(&error))?.into_body();
        answer.collect().await.map_err(|error| text(&error))?;
    }
    let time = start.elapsed();
    let spent = proc::thread_cpu().zip(before);
    Ok(Http {
        time: time / requests,
        cpu: spent.map(|(now, then)| (now - then) / requests),
    })
}
