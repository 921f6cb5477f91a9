//! What the machine itself allows, measured in the same run: the disk's flushes,
//! and an HTTP client that does nothing else.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;

use crate::proc;
use crate::scene::{Arrivals, json};
use crate::support::sender::block_on;
use crate::support::server::MainServer;

/// Bytes of one of LMDB's pages.
const PAGE: usize = 4096;
/// Pages of the file whose blocks are written already.
const WRITTEN: u64 = 2048;
/// How long each way to flush is tried.
const SLICE: Duration = Duration::from_millis(400);

/// Flushes a second; "pairs" are what LMDB does for one commit: data, flush,
/// meta page, flush.
#[derive(Debug, Clone, Copy)]
pub struct Disk {
    pub new: f64,
    pub written: f64,
    pub new_pairs: f64,
    pub written_pairs: f64,
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

impl Disk {
    /// Of the disk that holds `folder`.
    ///
    /// # Errors
    /// Names what failed.
    pub fn measure(folder: &Path) -> Result<Disk, String> {
        try_disk(folder).map_err(|error| format!("flush in {}: {error}", folder.display()))
    }

    /// Of two measurements, one before and one after something else.
    pub fn mean(self, other: Disk) -> Disk {
        Disk {
            new: f64::midpoint(self.new, other.new),
            written: f64::midpoint(self.written, other.written),
            new_pairs: f64::midpoint(self.new_pairs, other.new_pairs),
            written_pairs: f64::midpoint(self.written_pairs, other.written_pairs),
        }
    }
}

fn try_disk(folder: &Path) -> std::io::Result<Disk> {
    let data = tempfile::tempfile_in(folder)?;
    data.write_all_at(&vec![1; PAGE * WRITTEN as usize], 0)?;
    data.sync_all()?;
    // LMDB's two meta pages, in turn.
    let meta = |at: u64| (&data, at % 2);
    let old = |at: u64| (&data, 2 + at % (WRITTEN - 2));
    let flush = |(file, page): (&File, u64)| {
        file.write_all_at(&[2; PAGE], page * PAGE as u64)?;
        file.sync_data()
    };
    let grow = || -> std::io::Result<File> { tempfile::tempfile_in(folder) };
    let (one, two) = (grow()?, grow()?);
    Ok(Disk {
        new: a_second(|at| flush((&one, at)))?,
        written: a_second(|at| flush(old(at)))?,
        new_pairs: a_second(|at| flush((&two, at)).and_then(|()| flush(meta(at))))?,
        written_pairs: a_second(|at| flush(old(at)).and_then(|()| flush(meta(at))))?,
    })
}

/// How often a second `work` can be done.
fn a_second(mut work: impl FnMut(u64) -> std::io::Result<()>) -> std::io::Result<f64> {
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < SLICE {
        work(count)?;
        count += 1;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// hyper on one connection, one request in flight, the requests made once: what
/// a replay without a store would take.
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
