//! A relay between a client and the agent that counts what goes through.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::support::temp_folder;
use crate::support::wire::{ACK, Frame, PING, PREFACE};

/// Listens on a socket of its own, and connects to the agent's for each client.
pub struct Tap {
    folder: TempDir,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Default)]
struct Counts {
    connections: usize,
    /// Frames by their sender, their kind, and whether they are an ACK.
    frames: HashMap<(From, u8, bool), usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum From {
    Client,
    Agent,
}

impl Tap {
    pub fn new(agent: &Path) -> Tap {
        let folder = temp_folder();
        let counts = Arc::<Mutex<Counts>>::default();
        let listener = UnixListener::bind(folder.path().join("tap")).expect("bind the tap");
        let (agent, shared) = (agent.to_owned(), Arc::clone(&counts));
        // Both go on until the test's process ends.
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("accept");
                shared.lock().expect("counts").connections += 1;
                // To the client, too, no agent is there then.
                let Ok(agent) = UnixStream::connect(&agent) else {
                    continue;
                };
                let way = |stream: &UnixStream| stream.try_clone().expect("a second handle");
                relay(way(&client), way(&agent), From::Client, &shared);
                relay(agent, client, From::Agent, &shared);
            }
        });
        Tap { folder, counts }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("tap")
    }

    pub fn connections(&self) -> usize {
        self.counts.lock().expect("counts").connections
    }

    /// Frames of that kind that are no ACK and have been handed on.
    pub fn frames(&self, from: From, kind: u8) -> usize {
        self.count(from, kind, false)
    }

    /// PING frames that are an ACK.
    pub fn pongs(&self, from: From) -> usize {
        self.count(from, PING, true)
    }

    fn count(&self, from: From, kind: u8, ack: bool) -> usize {
        let counts = self.counts.lock().expect("counts");
        counts.frames.get(&(from, kind, ack)).copied().unwrap_or(0)
    }
}

fn relay(mut one: UnixStream, mut other: UnixStream, from: From, counts: &Arc<Mutex<Counts>>) {
    let counts = Arc::clone(counts);
    std::thread::spawn(move || {
        let mut bytes = vec![0; 64 * 1024];
        let mut unread = Vec::new();
        let mut skip = if from == From::Client {
            PREFACE.len()
        } else {
            0
        };
        // An error is an end: of the client, of the agent, or of the test.
        while let Ok(length @ 1..) = one.read(&mut bytes) {
            if other.write_all(&bytes[..length]).is_err() {
                break;
            }
            unread.extend_from_slice(&bytes[..length]);
            let begin = skip.min(unread.len());
            unread.drain(..begin);
            skip -= begin;
            count(&mut unread, from, &mut counts.lock().expect("counts"));
        }
        let _ = other.shutdown(Shutdown::Write);
    });
}

fn count(unread: &mut Vec<u8>, from: From, counts: &mut Counts) {
    while let Some(Frame { kind, flags, .. }) = Frame::take(unread) {
        let ack = kind == PING && flags & ACK != 0;
        *counts.frames.entry((from, kind, ack)).or_default() += 1;
    }
}
