//! Takes a gRPC request's message off the wire within the budget (spec 3): its
//! bytes are reserved by the length it declares, before its client is asked for
//! more than it may send unasked.

use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h2::RecvStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use crate::ingest::budget::Budget;
use crate::limits::{BODY_LOOK, BODY_PROGRESS_MIN, BODY_STALL, BODY_START_MIN, MESSAGE_MAX};

/// Bytes before a gRPC message: a flag and the length.
const PREFIX_LEN: usize = 5;

/// Reads the one message of a unary call. Its bytes stay reserved as long as
/// the permit lives. `crowded` tells whether somebody waits for the connection
/// of this call; `progress` is called for every piece that comes.
///
/// # Errors
/// RESOURCE_EXHAUSTED for a message over [`MESSAGE_MAX`], UNIMPLEMENTED for a
/// compressed one, INVALID_ARGUMENT for a broken one, DEADLINE_EXCEEDED for one
/// that stalls while others wait, CANCELLED when the client went away.
pub async fn receive(
    body: &mut RecvStream,
    budget: &Budget,
    crowded: impl Fn() -> bool,
    progress: impl Fn(),
) -> Result<(Bytes, OwnedSemaphorePermit), Status> {
    let mut pieces = Pieces::new(body);
    let mut message = BytesMut::new();
    let length = prefix(&mut pieces, &mut message, &crowded).await?;
    let share = budget.share(length);
    let crowded = || share.is_short() || crowded();
    // Nobody waits behind a client that promises much and sends nothing.
    let mut more = true;
    while more && message.len() < length.min(BODY_START_MIN) {
        pieces.ask_for_more();
        more = pieces.append_to(&mut message, &crowded).await?;
    }
    let mut reserved = pin!(share.reserve(length));
    // What the client may send meanwhile is copied as it comes: each piece keeps the
    // whole buffer that it was read into.
    let permit = loop {
        tokio::select! {
            biased;
            permit = &mut reserved => break permit,
            open = pieces.append_to(&mut message, || false), if more => more = open?,
        }
    };
    let permit = permit.ok_or_else(|| Status::unavailable("the agent is leaving"))?;
    message.reserve(length.saturating_sub(message.len()));
    pieces.restart();
    while more && message.len() <= length {
        pieces.ask_for_more();
        more = pieces.append_to(&mut message, &crowded).await?;
        progress();
    }
    if message.len() == length {
        return Ok((message.freeze(), permit));
    }
    Err(Status::invalid_argument(format!(
        "the request declares a message of {length} bytes and holds {}",
        message.len()
    )))
}

/// Reads and checks what stands before a message: its length. What comes along of
/// the message itself stays in `message`.
async fn prefix(
    pieces: &mut Pieces<'_>,
    message: &mut BytesMut,
    crowded: impl Fn() -> bool,
) -> Result<usize, Status> {
    while message.len() < PREFIX_LEN {
        pieces.ask_for_more();
        if !pieces.append_to(message, &crowded).await? {
            return Err(Status::invalid_argument("the request has no message"));
        }
    }
    let flag = message.get_u8();
    let length = message.get_u32() as usize;
    if flag != 0 {
        return Err(Status::unimplemented(
            "compressed messages are not supported",
        ));
    }
    if length > MESSAGE_MAX {
        return Err(Status::resource_exhausted(format!(
            "the message has {length} bytes, the limit is {MESSAGE_MAX}"
        )));
    }
    Ok(length)
}

/// A body piece by piece, as long as it makes progress or nobody waits.
struct Pieces<'a> {
    body: &'a mut RecvStream,
    /// Bytes that the client may not send again yet.
    taken: usize,
    /// Bytes since the last progress.
    grown: usize,
    /// Time without progress while others waited.
    stalled: Duration,
    next_look: Instant,
}

impl<'a> Pieces<'a> {
    fn new(body: &'a mut RecvStream) -> Self {
        Pieces {
            body,
            taken: 0,
            grown: 0,
            stalled: Duration::ZERO,
            next_look: Instant::now() + BODY_LOOK,
        }
    }

    /// Begins to count anew.
    fn restart(&mut self) {
        self.grown = 0;
        self.stalled = Duration::ZERO;
        self.next_look = Instant::now() + BODY_LOOK;
    }

    /// Lets the client send as much as has been taken.
    fn ask_for_more(&mut self) {
        // The client is gone where this fails.
        let taken = std::mem::take(&mut self.taken);
        let _ = self.body.flow_control().release_capacity(taken);
    }

    /// Appends the body's next bytes; false at its end.
    async fn append_to(
        &mut self,
        message: &mut BytesMut,
        crowded: impl Fn() -> bool,
    ) -> Result<bool, Status> {
        let piece = self.next(crowded).await?;
        message.extend_from_slice(piece.as_deref().unwrap_or_default());
        Ok(piece.is_some())
    }

    /// The body's next bytes, `None` at its end.
    async fn next(&mut self, crowded: impl Fn() -> bool) -> Result<Option<Bytes>, Status> {
        loop {
            match timeout_at(self.next_look, self.body.data()).await {
                Ok(Some(Ok(data))) => {
                    self.taken += data.len();
                    self.grown += data.len();
                    if self.grown >= BODY_PROGRESS_MIN {
                        self.restart();
                    }
                    return Ok(Some(data));
                }
                Ok(Some(Err(error))) => return Err(Status::cancelled(format!("request: {error}"))),
                Ok(None) => return Ok(None),
                Err(_) => self.look(crowded())?,
            }
        }
    }

    /// However late it comes, a look counts for the time between two.
    fn look(&mut self, crowded: bool) -> Result<(), Status> {
        if !crowded {
            self.restart();
            return Ok(());
        }
        self.next_look = Instant::now() + BODY_LOOK;
        self.stalled += BODY_LOOK;
        if self.stalled < BODY_STALL {
            return Ok(());
        }
        Err(Status::deadline_exceeded(
            "the request made no progress while others waited",
        ))
    }
}
