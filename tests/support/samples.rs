//! Records to send: real ones, many, and odd ones.

use std::path::Path;

use echopost::proto::logagent::LogRequest;
use serde_json::Value;

/// A record as a client hands it over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub json_data: String,
    pub pipelines: Vec<String>,
    pub api_key: String,
    /// For the request's metadata.
    pub idempotency_key: Option<String>,
}

impl Sample {
    pub fn request(&self) -> LogRequest {
        LogRequest {
            json_data: self.json_data.clone().into(),
            pipelines: self.pipelines.clone(),
            api_key: self.api_key.clone(),
        }
    }
}

/// The 200 records of `tests/samples/sdk-records.jsonl`, as the Python SDK hands
/// them over: 400 bytes to 4 KB, non-ASCII text, large integers, a traceback.
pub fn load() -> Vec<Sample> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/samples/sdk-records.jsonl"
    );
    load_from(Path::new(path), None).unwrap_or_else(|error| panic!("{error}"))
}

/// The records of a file with a JSON object a line, either samples or an
/// `agent-failure.log`. `api_key`, when there is one, takes the place of the
/// key in a sample and of the key that the failure log leaves out.
pub fn load_from(path: &Path, api_key: Option<&str>) -> Result<Vec<Sample>, String> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    text.lines()
        .enumerate()
        .map(|(at, line)| {
            serde_json::from_str(line)
                .map_err(|error| error.to_string())
                .and_then(|value| parse(&value, api_key))
                .map_err(|error| format!("{name}, line {}: {error}", at + 1))
        })
        .collect()
}

/// The record of one line of such a file.
pub fn parse(value: &Value, api_key: Option<&str>) -> Result<Sample, String> {
    Ok(Sample {
        json_data: text(value, "json_data")?.ok_or("json_data is missing")?,
        pipelines: value
            .get("pipelines")
            .map(|names| serde_json::from_value(names.clone()))
            .transpose()
            .map_err(|error| format!("pipelines: {error}"))?
            .unwrap_or_default(),
        api_key: match value.get("api_key_own") {
            // A record without a key of its own gets the agent's, now as then.
            Some(Value::Bool(false)) => String::new(),
            Some(Value::Bool(true)) => api_key
                .ok_or("the record came with an API key of its own, which no file keeps; pass it with --api-key")?
                .to_owned(),
            Some(other) => return Err(format!("api_key_own is {other}, not true or false")),
            None => match api_key {
                Some(key) => key.to_owned(),
                None => text(value, "api_key")?.unwrap_or_default(),
            },
        },
        idempotency_key: text(value, "idempotency_key")?,
    })
}

fn text(value: &Value, field: &str) -> Result<Option<String>, String> {
    match value.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(format!("{field} is {other}, not a string")),
    }
}

/// Makes any number of records in the shapes of the samples, each with its
/// number in front: `{"seq":17,…`.
pub struct Generator {
    shapes: Vec<Sample>,
}

impl Generator {
    pub fn new() -> Generator {
        let shapes = load();
        for shape in &shapes {
            assert!(
                shape.json_data.starts_with("{\""),
                "an object that is not empty"
            );
        }
        Generator { shapes }
    }

    /// Of records with about so many bytes of JSON, all in one shape.
    pub fn of_size(bytes: usize) -> Generator {
        let frame = r#"{"seq":123456,"level":"info","message":""}"#.len();
        let message = "an order was placed, paid and shipped; "
            .chars()
            .cycle()
            .take(bytes.saturating_sub(frame))
            .collect::<String>();
        Generator {
            shapes: vec![Sample {
                json_data: format!(r#"{{"level":"info","message":"{message}"}}"#),
                pipelines: vec!["orders".to_owned()],
                api_key: "key".to_owned(),
                idempotency_key: None,
            }],
        }
    }

    /// Record `number`: the same bytes whenever it is asked for.
    pub fn record(&self, number: u64) -> Sample {
        let at = usize::try_from(number).expect("64 bits") % self.shapes.len();
        let mut sample = self.shapes[at].clone();
        sample
            .json_data
            .replace_range(..1, &format!("{{\"seq\":{number},"));
        sample
    }
}

/// The number that `Generator::record` put into a record.
pub fn number_of(json: &[u8]) -> Option<u64> {
    let rest = json.strip_prefix(b"{\"seq\":")?;
    let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

/// Valid JSON (RFC 8259) that a parser's own types cannot hold, or that a
/// rewrite would change. All of it must arrive byte for byte.
pub fn nasty_json() -> Vec<(&'static str, String)> {
    let nested = |open: &str, close: &str| open.repeat(10_000) + "0" + &close.repeat(10_000);
    let large = "x".repeat(4 * 1024 * 1024 - 1024);
    vec![
        ("duplicate keys", r#"{"a":1,"a":2,"":3,"":4}"#.to_owned()),
        (
            "beyond f64",
            "[1e400,-1E+400,1e-400,-0,-0.0,0e0]".to_owned(),
        ),
        (
            "30 digits",
            "[123456789012345678901234567890,-0.123456789012345678901234567890]".to_owned(),
        ),
        ("above 2^53", r#"{"id":9007199254740993}"#.to_owned()),
        ("trailing zeros", "[1.0,1.10,100E-2,1e5]".to_owned()),
        ("10,000 arrays deep", nested("[", "]")),
        ("10,000 objects deep", nested(r#"{"a":"#, "}")),
        (
            "all escapes",
            r#""\"\\\/\b\f\n\r\t\u0000\u001f\u007f\u00e9\uD83D\uDE00""#.to_owned(),
        ),
        (
            "raw U+2028 and U+2029",
            "\"\u{2028}\u{2029}\u{7f}\u{85}\"".to_owned(),
        ),
        (
            "raw emoji and combining",
            "\"😀e\u{301}\u{10ffff}\"".to_owned(),
        ),
        ("lone high surrogate", r#""\ud800""#.to_owned()),
        (
            "lone low surrogate",
            r#"{"\udc00":"\udc00\ud800"}"#.to_owned(),
        ),
        (
            "whitespace around",
            " \t\r\n{ \"a\" :\n[ ] , \"b\" : { } }\r\n\t ".to_owned(),
        ),
        ("object", "{}".to_owned()),
        ("array", r#"[[],{},"",0,null,true,false]"#.to_owned()),
        ("string", r#""""#.to_owned()),
        ("number", "-12.5e-3".to_owned()),
        ("true", "true".to_owned()),
        ("null", "null".to_owned()),
        (
            "looks like the envelope",
            r#"{"pipelines":[],"log_data":{"log_data":"}"}}"#.to_owned(),
        ),
        ("just under 4 MiB", format!(r#"{{"blob":"{large}"}}"#)),
    ]
}
