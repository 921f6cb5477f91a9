//! A large record on a thin line (spec 6): the time for an answer begins when nothing more
//! can be sent.

use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size;
use tempfile::TempDir;

use crate::support::agent::Agent;
use crate::support::fixture::DEADLINE;
use crate::support::http1::{Answer, Message};
use crate::support::temp_folder;

/// Bytes of the record, of which the kernel holds but a part.
const LENGTH: usize = 4_000_000;
const PIECE: usize = 64 << 10;
/// The agent's for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

fn listen() -> (String, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    // What is not read here is felt by the agent.
    set_socket_recv_buffer_size(&listener, PIECE).expect("a small buffer");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    (url, listener)
}

/// The first connection, once its probe is answered.
fn probed(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().expect("a connection");
    let probe = Message::read(&mut BufReader::with_capacity(1, &stream));
    assert_eq!(probe.expect("HTTP").expect("a probe").method, "GET");
    stream.write_all(&Answer::ok().bytes()).expect("write");
    stream
}

/// A main server that reads its first record as `read` does, which tells how much came.
fn reading(
    read: impl FnOnce(&mut TcpStream) -> usize + Send + 'static,
) -> (String, JoinHandle<usize>) {
    let (url, listener) = listen();
    let server = spawn(move || {
        let mut stream = probed(&listener);
        let came = read(&mut stream);
        let _ = stream.write_all(&Answer::ok().bytes());
        came
    });
    (url, server)
}

fn start(url: &str) -> (TempDir, Agent) {
    let folder = temp_folder();
    let mut agent = Agent::builder(folder.path()).health_url(url).spawn();
    agent.wait_socket();
    agent.send(&format!("\"{}\"", "x".repeat(LENGTH)));
    (folder, agent)
}

#[test]
fn an_upload_that_moves_is_waited_for() {
    let (url, server) = reading(|stream| {
        let (mut piece, mut bytes) = (vec![0; PIECE], 0);
        while bytes < LENGTH {
            let more = stream.read(&mut piece).expect("the record");
            assert!(more > 0, "given up after {bytes} bytes");
            bytes += more;
            // The pace of a thin line.
            sleep(Duration::from_millis(190));
        }
        bytes
    });
    let begun = Instant::now();
    let (_folder, agent) = start(&url);
    server.join().expect("the server");
    assert!(begun.elapsed() > PATIENCE, "{:?}", begun.elapsed());
    assert!(agent.events_named("main_unreachable").is_empty());
}

#[test]
fn an_upload_that_comes_to_a_stand_is_given_up_with_what_is_left_of_it() {
    let (given_up, told) = mpsc::channel();
    let (url, server) = reading(move |stream| {
        told.recv_timeout(DEADLINE).expect("the test");
        let mut rest = Vec::new();
        // It ends with an error where the agent has reset it.
        let _ = stream.read_to_end(&mut rest);
        rest.len()
    });
    let (_folder, agent) = start(&url);
    let broken = agent.wait_event("main_unreachable", DEADLINE);
    let why = "timed out after 10s while waiting for the answer";
    assert_eq!(broken["error"], why);
    given_up.send(()).expect("the server");
    let came = server.join().expect("the server");
    assert!(came < LENGTH / 2, "{came} bytes were sent all the same");
}

/// The server has it, and reads no more of it.
#[test]
fn a_record_that_is_answered_before_its_end_does_not_hold_up_the_next_one() {
    let (url, listener) = listen();
    let (came, next) = mpsc::channel();
    spawn(move || {
        let mut first = probed(&listener);
        first.read_exact(&mut [0; 1000]).expect("a beginning");
        first.write_all(&Answer::ok().bytes()).expect("write");
        let (mut second, _) = listener.accept().expect("another connection");
        let record = Message::read(&mut BufReader::new(&second));
        let _ = came.send(record.expect("HTTP").expect("a record").body);
        second.write_all(&Answer::ok().bytes()).expect("write");
    });
    let (_folder, agent) = start(&url);
    agent.send("1");
    let next = next.recv_timeout(DEADLINE).expect("the next record");
    assert!(next.ends_with(br#""log_data":1}"#), "{} bytes", next.len());
    assert!(agent.events_named("main_unreachable").is_empty());
}
