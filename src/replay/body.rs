//! The body of a request, without a copy of the record in it.

use bytes::buf::Chain;
use bytes::{Buf as _, Bytes};
use http_body_util::Full;

/// A request's body, whose length is known. The default has none.
pub(super) type Body = Full<Chain<Chain<Bytes, Bytes>, Bytes>>;

/// A record as it is sent, each time in a body of its own.
#[derive(Debug, Clone)]
pub struct Payload {
    before: Bytes,
    json: Bytes,
}

/// Makes `{"pipelines":[…],"log_data":<json>}`, with `json` byte for byte (spec 6).
#[must_use]
pub fn body(pipelines: &[String], json: Bytes) -> Payload {
    // Strings always serialise.
    let pipelines = serde_json::to_string(pipelines).unwrap_or_else(|_| "[]".to_owned());
    let before = [r#"{"pipelines":"#, &*pipelines, r#","log_data":"#].concat();
    Payload {
        before: before.into(),
        json,
    }
}

impl Payload {
    pub(super) fn to_body(&self) -> Body {
        let start = self.before.clone().chain(self.json.clone());
        Full::new(start.chain(Bytes::from_static(b"}")))
    }
}

#[cfg(test)]
mod tests {
    use super::body;
    use bytes::{Buf as _, Bytes};
    use http_body_util::BodyExt as _;
    use hyper::body::Body as _;

    #[tokio::test]
    async fn the_record_goes_in_byte_for_byte_and_uncopied() {
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
            let payload = body(&pipelines, Bytes::from_static(json.as_bytes()));
            let sent = payload.to_body();
            assert_eq!(sent.size_hint().exact(), Some(expected.len() as u64));
            assert_eq!(sent.collect().await.unwrap().to_bytes(), expected);
            let mut sent = payload.to_body();
            let mut sent = sent.frame().await.unwrap().unwrap().into_data().unwrap();
            sent.advance(payload.before.len());
            assert_eq!(sent.chunk().as_ptr(), json.as_ptr());
        }
    }
}
