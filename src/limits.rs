//! Every limit and every timing of the agent, each with its unit and reason.
//!
//! "spec N" names the section of the behaviour contract that a value comes from.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

// --- Ingest (spec 3) ---

/// Bytes of the largest gRPC message that is taken; the field's usual default.
pub const MESSAGE_MAX: usize = 4 * MIB;
/// Bytes of messages larger than [`STREAM_WINDOW`] that are held at once, over all
/// connections. One of [`MESSAGE_MAX`] always fits, and two of 4 MB.
pub const BODY_BUDGET: usize = 8 * MIB - 256 * KIB;
/// Pipelines of one record: far more than anybody configures.
pub const PIPELINES_MAX: usize = 1024;
/// Bytes of the pipelines and the API key of one record. They are kept apart
/// from the message, and are escaped on replay, so this is memory several times
/// over.
pub const METADATA_MAX: usize = 64 * KIB;
/// Bytes of an Idempotency-Key that a client gives: what the usual services
/// take (255).
pub const IDEMPOTENCY_KEY_MAX: usize = 255;
/// Bytes that each call costs in the budget beyond its body: its task, its
/// stream and its headers.
pub const CALL_OVERHEAD: usize = 2 * KIB;
/// Connections served at once, of 16 KiB each while they are idle; further ones wait
/// in the listen backlog, and the idle make room. More than there are processes that
/// log at the same moment: to a client that is held up for a while, as one without
/// CPU time is, an idle connection that is cut is a call that failed.
pub const CONNECTIONS_MAX: usize = 192;
/// Descriptors kept free of client connections: stdio and events 4, runtime 3,
/// signals 4, lock 1, listener 2, its folder 1, store 5, logs 3, watcher 1, the server 1, and one
/// each for a lookup and for the client that is accepted to make room for.
pub const DESCRIPTORS_RESERVED: usize = 27;
/// Calls that a connection may have open: below so many connections, so many; one for
/// those beyond. Clients queue further calls themselves, but not before they have seen
/// the agent's SETTINGS, so that the first connections need as many as a client begins
/// at once. All together they are 528 on [`CONNECTIONS_MAX`] connections, each with a
/// window that is not reserved.
pub const STREAM_ALLOWANCES: [(usize, u32); 2] = [(4, 64), (16, 8)];
/// Bytes a client may send on a stream before the agent has asked for more. Not below a
/// third of HTTP/2's initial 65,535: of what a client sends before it has seen the
/// agent's SETTINGS, h2 gives back nothing below that, and a smaller window would then
/// stay shut for ever. The connection's window is as large as its streams' together:
/// calls in line fill theirs, and must leave room for the one that has its share.
pub const STREAM_WINDOW: u32 = 22 * KIB as u32;
const _: () = assert!(STREAM_WINDOW > 65_535 / 3);
/// Bytes beyond its window that a call in line is asked for, to show that its client
/// means to go on …
pub const SIGN_OF_LIFE: usize = KIB;
/// … and those of all calls in line together: of those that find none left nothing is
/// asked.
pub const SIGNS_BUDGET: usize = 512 * KIB;
/// Bytes of the headers of one call, decoded: what gRPC's own libraries take of each
/// other. h2 closes a connection that sends four times as many.
pub const HEADER_LIST_MAX: u32 = 8 * KIB as u32;
/// Bytes of an answer that h2 takes before its client has read some: all have less.
pub const SEND_BUFFER_MAX: usize = 4 * KIB;
/// Bytes that a call's request buffer starts with: what stands before a message, whose
/// length it grows by then.
pub const REQUEST_BUFFER: usize = 8;
/// Bytes that an answer's buffer starts with: all answers fit.
pub const RESPONSE_BUFFER: usize = 32;
/// Bytes of a path that is no method's which its refusal repeats: what a client
/// does not read waits in memory, and percent-encoded it is three times as long.
pub const PATH_SHOWN: usize = 256;
/// Bytes of the header block of one call as it comes over the wire. More than
/// [`HEADER_LIST_MAX`], so that h2 answers what is merely too large and only
/// a flood costs the connection.
pub const HEADER_BLOCK_MAX: usize = 16 * KIB;
/// Bytes of HPACK's dynamic table that a client may use: the default of RFC 9113
/// 6.5.2, which the agent's SETTINGS never change.
pub const HPACK_TABLE_MAX: usize = 4 * KIB;
/// A body that makes no progress for this long while others wait is dropped …
pub const BODY_STALL: Duration = Duration::from_secs(5);
/// … which is looked at this often, so that a time in which the agent itself was
/// held up, by its disk, is not taken for the client's.
pub const BODY_LOOK: Duration = Duration::from_millis(500);
/// Bytes that count as progress: some windows, which a client fills at once
/// unless it means not to.
pub const BODY_PROGRESS_MIN: usize = 2 * STREAM_WINDOW as usize;
/// A connection whose preface or header block is not finished by then is dropped.
pub const HEADER_STALL: Duration = Duration::from_secs(5);
/// A connection that has not called is spared for this long when others wait for its
/// place, or the agent leaves: long enough for a client to send what it connected for.
pub const IDLE_GRACE: Duration = Duration::from_millis(250);
/// The same for one that has called: its client keeps it for the next call, and may be
/// held up before that.
pub const KEPT_GRACE: Duration = Duration::from_secs(1);
/// A connection that was asked to end and has no call in flight is cut after
/// this time.
pub const CLOSE_GRACE: Duration = Duration::from_millis(200);
/// The same once the agent stops while others wait for its place, of which there may be
/// hundreds: all are served one placeful after the other within [`STOP_DRAIN`].
pub const CLOSE_GRACE_CROWDED: Duration = Duration::from_millis(20);
/// Bytes of a connection that are read before the others have their turn: small frames of no
/// use take h2 milliseconds, and 150 clients that send nothing else held up a stop for 2 s.
pub const READ_TURN: usize = 4 * KIB;
/// Bytes that are read at a time of what a client sends after the last GOAWAY: on the stack.
pub const DISCARD_SIZE: usize = KIB;
/// Connections that are on their way out at a time, to make room.
pub const EVICTIONS_MAX: usize = 8;
/// Calls or connections at once that are a crowd: malloc keeps what it frees of them …
pub const CROWD_MIN: usize = 16;
/// … and is made to give it back this often while a crowd is there, and once after it.
pub const CROWD_LOOK: Duration = Duration::from_secs(3);
/// Bytes that are still read of a call that is refused: what any client may have sent
/// before it can have heard of it.
pub const DISCARD_MAX: usize = 64 * KIB;
/// How long `accept` rests after an error such as EMFILE.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that the kernel may queue; it clamps this to `somaxconn`.
pub const LISTEN_BACKLOG: i32 = 4096;

// --- Store (spec 4) ---

/// Calls waiting for the writer; the byte budget binds earlier for large ones.
pub const WRITER_QUEUE: usize = 1024;
/// Bytes of records in one commit: well inside LMDB's list of dirty pages.
pub const GROUP_BYTES_MAX: usize = MIB;
/// Records in one commit, for the same reason.
pub const GROUP_RECORDS_MAX: usize = 512;
/// Bytes of address space the map starts with; it doubles as it fills.
pub const MAP_START: usize = 256 * MIB;
/// Bytes the map starts with where address space is scarce; below it the store
/// does not open.
pub const MAP_MIN: usize = MIB;
/// Bytes of address space that the map leaves free where it is scarce: bodies,
/// dirty pages and requests need memory, and an allocation that fails is the end.
pub const ADDRESS_SPACE_LEFT: usize = 32 * MIB;
/// Bytes of the map that records leave free: a delete, too, writes pages before
/// it frees any, and in a map that is full to the last page none can be made.
pub const MAP_RESERVE: u64 = 256 * KIB as u64;
/// Bytes by which the data file is lengthened ahead of LMDB, at least: little, so
/// that the first records do not wait for it …
pub const PREALLOCATED_MIN: u64 = 64 * KIB as u64;
/// … at most: the flush that takes them along holds up its group by some
/// milliseconds.
pub const PREALLOCATED_MAX: u64 = MIB as u64;
/// Bytes that a commit may write beside its records: the pages that lead to them
/// and the free list.
pub const COMMIT_OVERHEAD: u64 = 64 * KIB as u64;
/// How often a store that found no room is tried again.
pub const FULL_RETRY: Duration = Duration::from_secs(1);
/// Version of the store's own layout: database names, keys and values. Another
/// one in the file is a store of an unknown format (spec 4).
pub const STORE_FORMAT: u32 = 1;
/// Bytes of the largest value a record can have: one message, what protobuf and
/// the CRC add, and an idempotency key, which the header limit bounds.
pub const STORED_VALUE_MAX: usize = MESSAGE_MAX + 64 * KIB;
/// Seconds of processor time in which a child has read a store, of some hundred million
/// records even: LMDB may go round in circles in a garbled one.
pub const VERIFY_CPU_SECONDS: u64 = 120;
/// Pages that a salvage reads before it lets the rest of the agent run.
pub const SALVAGE_PAGES: usize = 256;
/// Scans of a damaged file for which there is no room beside it, each for a part of the
/// keys: the more, the less of a copy's pages stays empty.
pub const SALVAGE_BANDS: usize = 8;
/// Keys by which those parts are found.
pub const SALVAGE_SAMPLES: usize = 1024;
/// Pages in which a salvage looks for the store's id before records are taken: LMDB
/// writes it with the first record.
pub const SALVAGE_ID_PAGES: u64 = 4096;
/// Bytes of records carried over in one commit where there is little room.
pub const CARRY_BYTES_MIN: usize = 64 * KIB;
/// Commits that move what has arrived behind what was carried over, for each group of
/// further arrivals: more than one, or it would never end under a steady load.
pub const ARRIVALS_MOVED: usize = 8;
/// Damages of one store after another, within a life, after which the disk or the memory
/// is broken, and not a file.
pub const DAMAGES_MAX: u32 = 8;
/// Of the free pages in the store's file, LMDB's list of them may take this
/// share: it has some 16 bytes for each, in pages that are half full …
pub const FREE_LIST_SHARE: u64 = 16;
/// … and so many pages in any case, with the copies that one commit makes.
pub const FREE_LIST_PAGES_MIN: u64 = 64;
/// The disk's reserve: this share of the file system …
pub const RESERVE_SHARE: u64 = 100;
/// … at least so many bytes …
pub const RESERVE_MIN: u64 = 4 * MIB as u64;
/// … at most so many …
pub const RESERVE_MAX: u64 = 256 * MIB as u64;
/// … and never more than this share.
pub const RESERVE_SHARE_MAX: u64 = 4;
/// Records that one commit deletes: of more, on a disk that had no room for deletes,
/// one transaction would hold the pages of all.
pub const DELETES_MAX: usize = 2 * DELETE_RECORDS_MAX;
/// Bytes that a commit without new records may write: what a delete of
/// [`DELETES_MAX`] records touches, and the free list. Where a commit came out short,
/// this and what its records need is tried. Less than half of [`RESERVE_MIN`], to
/// which records are admitted: a disk that has it is not full.
pub const DELETE_ROOM: u64 = MIB as u64;
/// Bytes of one write of that: little to keep on the stack.
pub const ROOM_STEP: usize = 16 * KIB;

// --- Lifecycle (spec 5) ---

/// How long a start waits for another agent's lock or socket: longer than that agent
/// has its lock once its socket is gone, and below the 2 s that the SDK waits.
pub const LOCK_WAIT: Duration = Duration::from_millis(1800);
/// How long after its first answer another agent has to answer still: an agent that
/// was killed, or leaves, has closed its socket by then.
pub const LIVENESS_RECHECK: Duration = Duration::from_millis(300);
/// How often it looks in that time.
pub const LOCK_POLL: Duration = Duration::from_millis(10);
/// First delay between two probes; it doubles up to [`PROBE_DELAY_MAX`].
pub const PROBE_DELAY_MIN: Duration = Duration::from_millis(250);
/// Longest delay between two probes, before jitter.
pub const PROBE_DELAY_MAX: Duration = Duration::from_secs(5);
/// A whole probe, redirects included.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Redirects a probe follows, on the same host.
pub const PROBE_REDIRECTS: usize = 3;
/// No leaving before this much time without a call …
pub const LEAVE_QUIET: Duration = Duration::from_secs(2);
/// … and a random part of this: an application that logs at a fixed interval must not
/// meet the same moment each time.
pub const LEAVE_JITTER: Duration = Duration::from_secs(1);
/// No leaving before this age: the SDK that started the agent may still be
/// connecting.
pub const LEAVE_AGE: Duration = Duration::from_secs(3);
/// How long those already connected are served once the socket file is gone: a
/// connection's [`IDLE_GRACE`] ends within it. With the removal of the store it stays
/// below the 500 ms of spec 5.
pub const LEAVE_DRAIN: Duration = Duration::from_millis(300);
/// How long clients that have found the socket file may take to connect once it is
/// gone: a connect(2) that the scheduler interrupted after looking it up.
pub const LEAVE_SETTLE: Duration = Duration::from_millis(20);
/// How long calls in flight are served after a signal. With the closing of the store
/// it stays below the 1.2 s of spec 5, after which the lock is released.
pub const STOP_DRAIN: Duration = Duration::from_millis(800);
/// How long closing the store may take after a signal, unless the disk blocks.
pub const STORE_CLOSE: Duration = Duration::from_millis(300);
/// How often the socket file is looked at where it cannot be watched or bound.
pub const SOCKET_POLL: Duration = Duration::from_millis(500);
/// Sockets that are looked at before the kernel is asked for more: the list is made at the
/// start, and one for the usual 1024 is 12 KiB in the middle of the heap.
pub const IO_EVENTS_MAX: usize = 128;
/// Bytes of an allocation that gets a map of its own, and gives it back at once:
/// the body of a large call, LMDB's list of dirty pages.
pub const LARGE_ALLOCATION: i32 = 32 * KIB as i32;
/// Bytes by which the heap grows beyond what is asked for.
pub const MALLOC_TOP_PAD: i32 = 16 * KIB as i32;
/// The start, or an outage before a standby, is over by then: what it needed is given
/// back to the kernel.
pub const SETTLE_DELAY: Duration = Duration::from_secs(1);
/// Between two questions whether a running log still stands at its path.
pub const LOG_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How often a line is written again because its file was moved away meanwhile, before
/// that counts as a failure: more than an operator does by hand.
pub const REWRITES_MAX: usize = 8;
/// Session folders that stay.
pub const SESSIONS_KEPT: usize = 10;

// --- Replay (spec 6) ---

/// Connecting to the main server, from the name's resolution over a proxy's
/// tunnel to the TLS handshake.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After this time without an end, a lookup is asked again beside the one that hangs; of
/// those, each further one has twice the time. The C library asks two name servers that do
/// not answer for as long, by default (resolv.conf(5): 5 s, twice).
pub const LOOKUP_HANGS: Duration = Duration::from_secs(20);
/// The longest such time: a thread that hangs for ever costs its stack.
pub const LOOKUP_PATIENCE_MAX: Duration = Duration::from_secs(3600);
/// What a lookup finds that ended after the connection that wanted it serves the
/// next one for this long: more than the longest delay between two probes.
pub const LOOKUP_KEPT: Duration = Duration::from_secs(10);
/// For the body of an answer, after its head, which decides what becomes of the record
/// (spec 6).
pub const ANSWER_BODY_TIMEOUT: Duration = Duration::from_secs(2);
/// From the request's last byte to the head of the answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that the kernel may hold of a request, before it doubles them for its
/// own needs: they count as sent, and in a memory cgroup.
pub const SEND_BUFFER: u32 = 128 * KIB as u32;
/// Bytes that TLS may hold of a request, encrypted, before the kernel takes them:
/// one TLS record. They count as sent, too.
pub const TLS_SEND_BUFFER: usize = 16 * KIB;
/// TLS sessions that are kept to be resumed: those of the main server and of a
/// proxy, for each of which rustls counts eight.
pub const TLS_SESSIONS_MAX: usize = 2 * 8;
/// Bytes of a proxy's answer to CONNECT: its status line and headers; hyper's least.
pub const TUNNEL_ANSWER_MAX: usize = 8 * KIB;
/// Bytes of an answer's status line and headers; servers stay below 8 KiB by
/// default. hyper reads ahead, so that up to half as much again may pass.
pub const ANSWER_HEAD_MAX: usize = 64 * KIB;
/// How long a kept connection may take to be ready for the next request: it is
/// at once, unless the server answered before it had read the whole request.
pub const KEEP_ALIVE_SETTLE: Duration = Duration::from_millis(100);
/// Bytes of a `Location` that are kept for an event.
pub const LOCATION_KEPT: usize = 512;
/// Bytes of an answer's body that are read so that the connection serves again.
pub const ANSWER_BODY_MAX: usize = 64 * KIB;
/// Bytes of an answer's body that are kept with a record set aside.
pub const ANSWER_BODY_KEPT: usize = 2 * KIB;
/// First delay of the back-off; it doubles up to [`BACKOFF_MAX`].
pub const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// Longest delay of the back-off.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Shortest delay of the back-off: no hot loop, even with zero jitter.
pub const BACKOFF_FLOOR: Duration = Duration::from_millis(50);
/// Longest `Retry-After` that is honoured.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// Patience with a doubtful record that follows a delivered one.
pub const PATIENCE_AFTER_DELIVERED: Duration = Duration::from_secs(2);
/// Patience with a doubtful record that follows one set aside, or nothing yet.
pub const PATIENCE_MIN: Duration = Duration::from_secs(10);
/// Longest patience.
pub const PATIENCE_MAX: Duration = Duration::from_secs(3600);
/// Tries of one record in a row that break off without an answer before it is set aside …
pub const BREAKS_MIN: u32 = 5;
/// … and the time over which they have to go on at least: longer than a restart …
pub const BREAKS_TIME_MIN: Duration = Duration::from_secs(60);
/// … which doubles with each record so set aside, up to this.
pub const BREAKS_TIME_MAX: Duration = Duration::from_secs(3600);
/// Refusals in a row after which a refusal counts as doubtful.
pub const REFUSALS_TRUSTED: u32 = 16;
/// Delivered records that a killed agent's successor may send again (spec 6).
pub const SAVE_RECORDS_MAX: usize = 64;
/// Delivered records that may wait for their delete: the pages that it reads and
/// writes count as the agent's memory.
pub const DELETE_RECORDS_MAX: usize = 256;
/// How long a delivered record may wait for its delete: what a power cut has sent
/// again.
pub const DELETE_DELAY_MAX: Duration = Duration::from_millis(250);
/// Records whose pages of the store are mapped at a time: the kernel maps up to
/// sixteen pages around each, and in a store that was full they lie scattered.
pub const MAPPED_RECORDS_MAX: usize = 16;
/// Records read from the store at once.
pub const BATCH_RECORDS_MAX: usize = 64;
/// Bytes read from the store at once; one record always fits.
pub const BATCH_BYTES_MAX: usize = 128 * KIB;

// --- Events (spec 8) ---

/// At most one event of a kind in this time.
pub const EVENT_INTERVAL: Duration = Duration::from_secs(1);
/// Between two `progress` events.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(60);
/// Bytes of one event line: what a pipe takes without blocking (POSIX PIPE_BUF
/// on Linux).
pub const EVENT_LINE_MAX: usize = 4 * KIB;
