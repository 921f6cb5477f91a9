//! A gRPC request's body within what admission allows (spec 3): a message that fits a
//! window is read as it comes; the bytes of a larger one are reserved by the length it
//! declares before its client is asked for more.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use hyper::body::{Body, Frame};
use tokio::sync::OwnedSemaphorePermit;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::ingest::admission::Call;
use crate::ingest::stall::StallClock;
use crate::limits::{BODY_LOOK, BODY_STALL, DISCARD_MAX, MESSAGE_MAX, SIGN_OF_LIFE, STREAM_WINDOW};

/// Bytes before a gRPC message: a flag and the length.
const PREFIX_LEN: usize = 5;

type Reserving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The body of a unary call: one message, and then the end.
///
/// Its errors are the statuses of spec 3: RESOURCE_EXHAUSTED for a message over
/// [`MESSAGE_MAX`], UNIMPLEMENTED for a compressed one, INVALID_ARGUMENT for a broken
/// one, DEADLINE_EXCEEDED for one that stalls while others wait.
pub struct RequestBody {
    incoming: RecvStream,
    call: Arc<Call>,
    stage: Stage,
    /// What has come of the prefix, and of a large message's beginning, before the
    /// message is handed on.
    beginning: Vec<u8>,
    /// What follows the prefix, which is handed on alone: tonic makes room for the
    /// message then, and for nothing else.
    next: Option<Bytes>,
    /// Bytes that have come and that the client has no credit for yet.
    owed: usize,
    clock: StallClock,
}

enum Stage {
    Beginning,
    InLine(InLine),
    /// So many bytes have come of so many, the prefix among them.
    Message {
        came: usize,
        whole: usize,
    },
    /// Why, and how many bytes are still read: some clients take an answer to half a
    /// request for a broken stream.
    Refused {
        status: Status,
        left: usize,
    },
}

/// The call is in line for the bytes of a large message.
struct InLine {
    /// Bytes of the message and its prefix.
    whole: usize,
    reserving: Reserving,
    /// Bytes beyond the window that its client was asked for.
    signs: Option<OwnedSemaphorePermit>,
    /// It has not sent anything since it was asked.
    asked: bool,
    /// Until it is asked again.
    rest: Duration,
}

impl RequestBody {
    /// A body of which nothing has been read.
    #[must_use]
    pub fn new(incoming: RecvStream, call: Arc<Call>) -> RequestBody {
        RequestBody {
            incoming,
            call,
            stage: Stage::Beginning,
            beginning: Vec::new(),
            next: None,
            owed: 0,
            clock: StallClock::default(),
        }
    }

    /// A body whose call is refused whatever it holds.
    #[must_use]
    pub fn refused(mut self, status: Status) -> RequestBody {
        self.refuse(status);
        self
    }

    fn refuse(&mut self, status: Status) {
        drop(self.call.take_reserved());
        self.clock.restart();
        self.beginning = Vec::new();
        // There is nothing to wait for of a client that stalls.
        let left = match status.code() {
            Code::DeadlineExceeded => 0,
            _ => DISCARD_MAX,
        };
        self.stage = Stage::Refused { status, left };
    }

    /// The next bytes, `None` at the end, an error for a client that stalls.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        if let Poll::Ready(piece) = self.poll_data(cx) {
            return Poll::Ready(piece);
        }
        let call = &self.call;
        ready!(self.clock.poll_stalled(cx, || call.others_wait(false)));
        Poll::Ready(Some(Err(self.stalled())))
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        let piece = ready!(self.incoming.poll_data(cx));
        Poll::Ready(piece.map(|piece| match piece {
            Ok(piece) => {
                self.owed += piece.len();
                self.clock.came(piece.len());
                Ok(piece)
            }
            Err(error) => Err(Status::cancelled(format!("request: {error}"))),
        }))
    }

    fn stalled(&self) -> Status {
        self.call.stalled();
        Status::deadline_exceeded("the request made no progress while others waited")
    }

    /// Gives the client credit for so many bytes that have come; it is gone where this
    /// fails.
    fn allow(&mut self, bytes: usize) {
        let bytes = bytes.min(self.owed);
        self.owed -= bytes;
        let _ = self.incoming.flow_control().release_capacity(bytes);
    }

    /// Reads the prefix, and goes on to the next stage; answers with what is to be
    /// handed on by then.
    fn poll_beginning(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        let piece = ready!(self.poll_piece(cx)).transpose()?;
        let Some(piece) = piece else {
            return Poll::Ready(Err(match declared(&self.beginning)? {
                None => Status::invalid_argument("the request has no message"),
                Some(whole) => not_as_declared(whole, self.beginning.len()),
            }));
        };
        // The usual record comes in one piece; it is not copied.
        if self.beginning.is_empty()
            && let Some(whole @ 0..=WINDOW) = declared(&piece)?
        {
            return Poll::Ready(self.hand_on_first(piece, whole).map(Some));
        }
        // A piece keeps the whole buffer that it was read into.
        let expected = WINDOW.saturating_sub(self.beginning.len());
        self.beginning.reserve_exact(piece.len().max(expected));
        self.beginning.extend_from_slice(&piece);
        match declared(&self.beginning)? {
            Some(whole @ 0..=WINDOW) => {
                let beginning = self.take_beginning();
                return Poll::Ready(self.hand_on_first(beginning, whole).map(Some));
            }
            // All that its client may send unasked: those that stall are found out
            // before, and all at the same time.
            Some(whole) if self.beginning.len() >= WINDOW => {
                self.clock.restart();
                self.stage = Stage::InLine(InLine {
                    whole,
                    reserving: Box::pin(self.call.reserve(whole)),
                    signs: None,
                    asked: false,
                    rest: Duration::ZERO,
                });
            }
            _ => {}
        }
        Poll::Ready(Ok(None))
    }

    fn take_beginning(&mut self) -> Bytes {
        std::mem::take(&mut self.beginning).into()
    }

    /// Waits for the bytes of the message. Others may wait behind a client that means
    /// not to go on: now and then each is asked for a little, and those that send
    /// nothing are found out at the same time.
    fn poll_in_line(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        loop {
            let Stage::InLine(line) = &mut self.stage else {
                return Poll::Pending;
            };
            let whole = line.whole;
            if line.reserving.as_mut().poll(cx).is_ready() {
                self.allow(usize::MAX);
                self.clock.restart();
                let beginning = self.take_beginning();
                return Poll::Ready(self.hand_on_first(beginning, whole));
            }
            match self.poll_data(cx) {
                Poll::Ready(Some(piece)) => {
                    let piece = piece?;
                    self.beginning.reserve_exact(piece.len());
                    self.beginning.extend_from_slice(&piece);
                    if let Stage::InLine(line) = &mut self.stage
                        && std::mem::take(&mut line.asked)
                    {
                        line.rest = BODY_STALL;
                    }
                    self.clock.restart();
                    continue;
                }
                Poll::Ready(None) if self.beginning.len() == whole => return Poll::Pending,
                Poll::Ready(None) => {
                    return Poll::Ready(Err(not_as_declared(whole, self.beginning.len())));
                }
                // It has come whole; only the end is missing.
                Poll::Pending if self.beginning.len() >= whole => return Poll::Pending,
                Poll::Pending => {}
            }
            ready!(self.clock.poll_look(cx));
            self.look_at_line()?;
        }
    }

    /// To be called every [`BODY_LOOK`] while in line.
    fn look_at_line(&mut self) -> Result<(), Status> {
        let Stage::InLine(line) = &mut self.stage else {
            return Ok(());
        };
        if !self.call.others_wait(true) {
            self.clock.stalled = Duration::ZERO;
        } else if line.asked {
            self.clock.stalled += BODY_LOOK;
            if self.clock.stalled >= BODY_STALL {
                return Err(self.stalled());
            }
        } else if !line.rest.is_zero() {
            line.rest = line.rest.saturating_sub(BODY_LOOK);
        } else if let Some(sign) = self.call.reserve_sign() {
            match &mut line.signs {
                Some(signs) => signs.merge(sign),
                None => line.signs = Some(sign),
            }
            line.asked = true;
            // What came before the client knew its window is beyond that already.
            self.allow(self.owed.saturating_sub(WINDOW) + SIGN_OF_LIFE);
        }
        Ok(())
    }

    /// Reads on.
    fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
        came: usize,
        whole: usize,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        let piece = ready!(self.poll_piece(cx)).transpose()?;
        Poll::Ready(match piece {
            Some(piece) => {
                self.call.progress();
                self.allow(usize::MAX);
                Some(self.hand_on(piece, came, whole))
            }
            None if came < whole => Some(Err(not_as_declared(whole, came))),
            None => None,
        })
    }

    /// Begins to hand a message on.
    fn hand_on_first(&mut self, mut piece: Bytes, whole: usize) -> Result<Bytes, Status> {
        let prefix = piece.split_to(PREFIX_LEN);
        let rest = self.hand_on(piece, PREFIX_LEN, whole)?;
        self.next = Some(rest);
        Ok(prefix)
    }

    /// Hands a piece on, but no more than was declared: tonic would make room for what
    /// follows as if it were another message.
    fn hand_on(&mut self, piece: Bytes, before: usize, whole: usize) -> Result<Bytes, Status> {
        let came = before + piece.len();
        self.stage = Stage::Message { came, whole };
        match came > whole {
            true => Err(not_as_declared(whole, came)),
            false => Ok(piece),
        }
    }

    /// Reads on for a moment, and then says why the call is refused.
    fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        loop {
            let read = self.poll_data(cx);
            self.allow(usize::MAX);
            let Stage::Refused { status, left } = &mut self.stage else {
                return Poll::Pending;
            };
            match read {
                Poll::Ready(Some(Ok(piece))) if piece.len() <= *left => *left -= piece.len(),
                Poll::Ready(_) => return Poll::Ready(status.clone()),
                Poll::Pending if *left == 0 => return Poll::Ready(status.clone()),
                Poll::Pending => {
                    let status = status.clone();
                    return self.clock.poll_look(cx).map(|()| status);
                }
            }
        }
    }

    fn poll_stages(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        if let Some(piece) = self.next.take() {
            return Poll::Ready(Some(Ok(piece)));
        }
        while let Stage::Beginning = self.stage {
            if let Some(piece) = ready!(self.poll_beginning(cx)).transpose() {
                return Poll::Ready(Some(piece));
            }
        }
        match self.stage {
            Stage::Beginning | Stage::Refused { .. } => Poll::Ready(None),
            Stage::InLine(_) => self.poll_in_line(cx).map(Some),
            Stage::Message { came, whole } => self.poll_message(cx, came, whole),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if !matches!(this.stage, Stage::Refused { .. }) {
            match ready!(this.poll_stages(cx)) {
                Some(Err(status)) => this.refuse(status),
                piece => return Poll::Ready(piece.map(|piece| piece.map(Frame::data))),
            }
        }
        let status = ready!(this.poll_refused(cx));
        Poll::Ready(Some(Err(status)))
    }
}

/// Bytes of a message that is in no line, its prefix among them.
const WINDOW: usize = STREAM_WINDOW as usize;

/// What a message is declared to have with its prefix, once that has come.
fn declared(bytes: &[u8]) -> Result<Option<usize>, Status> {
    let Some(&[flag, l0, l1, l2, l3]) = bytes.first_chunk::<PREFIX_LEN>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    if flag != 0 {
        let mut status = Status::unimplemented("compressed messages are not supported");
        // gRPC's compression.md: a refusal says what is accepted.
        let accepted = MetadataValue::from_static("identity");
        status
            .metadata_mut()
            .insert("grpc-accept-encoding", accepted);
        return Err(status);
    }
    if length > MESSAGE_MAX {
        return Err(Status::resource_exhausted(format!(
            "the message has {length} bytes, the limit is {MESSAGE_MAX}"
        )));
    }
    Ok(Some(length + PREFIX_LEN))
}

/// Both with the prefix.
fn not_as_declared(whole: usize, came: usize) -> Status {
    let (length, came) = (whole - PREFIX_LEN, came - PREFIX_LEN);
    Status::invalid_argument(format!(
        "the request declares a message of {length} bytes and holds {came}"
    ))
}
