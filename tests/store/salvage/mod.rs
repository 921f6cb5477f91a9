//! Damaged stores as they are met (spec 4): little memory, little room, mounts, other
//! hosts, a clock that is behind, kills, copies and crashes. `store::damage` has every
//! kind of damage to a small store.
//!
//! `ECHOPOST_RECORDS` says how many records are saved in little memory.
#![cfg(target_os = "linux")]

mod beside;
mod clock;
mod copies;
mod crashes;
mod kills;
mod locks;
mod made;
mod memory;
mod mounts;
mod owners;
mod room;
use crate::support;
mod twice;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::fixture;
use echopost::proto::logagent::LogResponse;
use support::agent::{Agent, names_in};
use support::sender::{Sender, block_on};
use support::server::{Answer, MainServer, body_parts};
use tonic::Status;

/// For anything that an agent does on these slow machines.
const DEADLINE: Duration = Duration::from_secs(90);

/// What a main server took: each record's number and its Idempotency-Key, in order.
#[derive(Clone, Default)]
struct Arrived(Arc<Mutex<Vec<(u64, String)>>>);

impl Arrived {
    /// Takes all that comes to `server` from now on.
    fn at(server: &MainServer) -> Arrived {
        let arrived = Arrived::default();
        let list = Arc::clone(&arrived.0);
        server.forget_requests();
        server.on_post(move |message| {
            let (_, json) = body_parts(&message.body).expect("a record");
            let key = message.header("idempotency-key").expect("its key");
            list.lock()
                .unwrap()
                .push((made::number(json), key.to_owned()));
            Answer::ok()
        });
        arrived
    }

    fn numbers(&self) -> Vec<u64> {
        let list = self.0.lock().unwrap();
        list.iter().map(|(number, _)| *number).collect()
    }

    fn keys(&self) -> Vec<String> {
        let list = self.0.lock().unwrap();
        list.iter().map(|(_, key)| key.clone()).collect()
    }
}

fn start(base: &Path, server: &MainServer) -> Agent {
    fixture::spawn(base, server)
}

/// Sends the record with this number.
fn try_send(socket: &Path, number: u64) -> Result<LogResponse, Status> {
    let sender = Sender::reconnecting(socket);
    block_on(async {
        let json = made::json(number);
        let call = sender.send(&json, &[], "");
        let answer = tokio::time::timeout(DEADLINE, call).await;
        answer.unwrap_or_else(|_| panic!("no answer within {DEADLINE:?}"))
    })
}

fn send(agent: &Agent, number: u64) {
    let answer = try_send(&agent.socket(), number);
    assert!(
        answer.is_ok_and(|answer| answer.success),
        "{}",
        agent.stdout()
    );
}

/// Starts an agent on a damaged store: it takes the record `new` at once, delivers what
/// can be read with the server back, that one last, and leaves.
fn serve(mut agent: Agent, server: &mut MainServer, new: u64) -> Agent {
    agent.wait_answering();
    send(&agent, new);
    server.up();
    agent.expect_exit(0, DEADLINE);
    agent
}

/// True where the store's folder has a file whose name begins so.
fn has_file(base: &Path, prefix: &str) -> bool {
    let folder = base.join("lmdb");
    let is_one = |name: &String| name.starts_with(prefix);
    folder.is_dir() && names_in(&folder).iter().any(is_one)
}

const SALVAGE: &str = "data.mdb.salvage-";
const DAMAGED: &str = "data.mdb.damaged-";
