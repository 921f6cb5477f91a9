//! The body of a request, without a copy of the record in it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

/// A request body in pieces; its length is known. The default has none.
#[derive(Debug, Clone, Default)]
pub struct Body {
    chunks: [Bytes; 3],
    /// Pieces handed out so far.
    sent: usize,
}

/// `{"pipelines":[…],"log_data":<json>}`, with `json` byte for byte (spec 6).
#[must_use]
pub fn body(pipelines: &[String], json: Bytes) -> Body {
    // Strings always serialise.
    let pipelines = serde_json::to_string(pipelines).unwrap_or_else(|_| "[]".to_owned());
    let before = [r#"{"pipelines":"#, &*pipelines, r#","log_data":"#].concat();
    Body {
        chunks: [before.into(), json, Bytes::from_static(b"}")],
        sent: 0,
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let sent = self.sent;
        let Some(chunk) = self.chunks.get_mut(sent) else {
            return Poll::Ready(None);
        };
        let chunk = std::mem::take(chunk);
        self.sent += 1;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.iter().all(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.chunks.iter().map(|chunk| chunk.len() as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::{Body, body};
    use bytes::Bytes;
    use http_body_util::BodyExt as _;
    use hyper::body::Body as _;

    #[tokio::test]
    async fn the_record_goes_in_byte_for_byte() {
        for (pipelines, json, expected) in [
            (&[][..], "{}", r#"{"pipelines":[],"log_data":{}}"#),
            (
                &["a", "b"],
                " {\"n\": 9007199254740993.0 } ",
                r#"{"pipelines":["a","b"],"log_data": {"n": 9007199254740993.0 } }"#,
            ),
            (
                &["\"\\\n", "ü", ""],
                r#""\u00e9""#,
                r#"{"pipelines":["\"\\\n","ü",""],"log_data":"\u00e9"}"#,
            ),
        ] {
            let pipelines: Vec<String> = pipelines.iter().map(ToString::to_string).collect();
            let body = body(&pipelines, Bytes::from_static(json.as_bytes()));
            assert_eq!(body.size_hint().exact(), Some(expected.len() as u64));
            let sent = body.collect().await.unwrap().to_bytes();
            assert_eq!(sent, expected);
        }
    }

    #[test]
    fn the_record_is_not_copied() {
        let json = Bytes::from(vec![b'1'; 100]);
        let body = body(&[], json.clone());
        assert_eq!(body.chunks[1].as_ptr(), json.as_ptr());
        assert_eq!(body.clone().chunks[1].as_ptr(), json.as_ptr());
    }

    #[test]
    fn no_body_is_none_at_all() {
        assert!(Body::default().is_end_stream());
        assert_eq!(Body::default().size_hint().exact(), Some(0));
    }
}
