//! Events (spec 8): one JSON object a line, on stdout and in `agent.log`.
//!
//! Neither a full or closed stdout nor a full disk stops the agent: what cannot be
//! written at once is dropped.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use crate::limits::{EVENT_INTERVAL, EVENT_LINE_MAX};
use crate::log::Log;
use crate::stdout::Stdout;

/// A field's value.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// Text, shortened to what fits the line.
    Text(&'a str),
    /// A whole number.
    Number(u64),
    /// Yes or no.
    Flag(bool),
    /// Not known.
    Null,
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Value::Text(text)
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Value::Number(number)
    }
}

impl From<Option<u64>> for Value<'_> {
    fn from(number: Option<u64>) -> Self {
        number.map_or(Value::Null, Value::Number)
    }
}

impl From<bool> for Value<'_> {
    fn from(flag: bool) -> Self {
        Value::Flag(flag)
    }
}

/// Where events go: nowhere yet by default. Clones share one log and one rate limit.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<Sink>>);

#[derive(Default)]
struct Sink {
    stdout: Option<Stdout>,
    log: Option<Log>,
    /// Per kind: when it was last printed and how many were left out since.
    kinds: Vec<(&'static str, Instant, u64)>,
}

impl Events {
    /// Writes what follows to `stdout`.
    #[must_use]
    pub fn new(stdout: Stdout) -> Events {
        let events = Events::default();
        events.sink().stdout = Some(stdout);
        events
    }

    /// Writes what follows to `log` too.
    pub fn log_to(&self, log: Log) {
        self.sink().log = Some(log);
    }

    /// Prints an event, unless one of its kind was printed less than
    /// [`EVENT_INTERVAL`] ago; the next one then says how many were left out.
    pub fn emit(&self, kind: &'static str, fields: &[(&str, Value)]) {
        self.try_emit(kind, fields);
    }

    /// The same; false when it was left out.
    pub fn try_emit(&self, kind: &'static str, fields: &[(&str, Value)]) -> bool {
        let mut sink = self.sink();
        let now = Instant::now();
        let mut suppressed = 0;
        match sink.kinds.iter_mut().find(|(known, ..)| *known == kind) {
            Some((_, last, left_out)) if now.duration_since(*last) < EVENT_INTERVAL => {
                *left_out += 1;
                return false;
            }
            Some((_, last, left_out)) => {
                *last = now;
                suppressed = std::mem::take(left_out);
            }
            None => sink.kinds.push((kind, now, 0)),
        }
        sink.write(&line(kind, fields, suppressed));
        true
    }

    fn sink(&self) -> std::sync::MutexGuard<'_, Sink> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink {
    fn write(&mut self, line: &str) {
        if let Some(log) = &mut self.log {
            log.append(line);
        }
        if let Some(stdout) = &mut self.stdout {
            stdout.write_line(line.as_bytes());
        }
    }
}

fn line(kind: &str, fields: &[(&str, Value)], suppressed: u64) -> String {
    let mut line = String::with_capacity(256);
    line.push_str("{\"time\":\"");
    line.push_str(&now_rfc3339());
    line.push_str("\",\"event\":");
    push_text(&mut line, kind, usize::MAX);
    // The name, its punctuation and what follows need some of the line.
    let room = (EVENT_LINE_MAX - 512) / fields.len().max(1);
    for (name, value) in fields {
        push_field(&mut line, name, *value, room);
    }
    if suppressed > 0 {
        push_field(&mut line, "suppressed", Value::Number(suppressed), 0);
    }
    line.push_str("}\n");
    line
}

fn push_field(line: &mut String, name: &str, value: Value, room: usize) {
    line.push(',');
    push_text(line, name, usize::MAX);
    line.push(':');
    match value {
        Value::Text(text) => push_text(line, text, room),
        Value::Number(number) => line.push_str(&number.to_string()),
        Value::Null => line.push_str("null"),
        Value::Flag(flag) => line.push_str(if flag { "true" } else { "false" }),
    }
}

/// Appends `text` as a JSON string of at most about `room` bytes.
fn push_text(line: &mut String, text: &str, room: usize) {
    let mut text = text;
    loop {
        // A string always serialises; the fallback keeps the line valid JSON.
        let quoted = serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned());
        if quoted.len() <= room || text.is_empty() {
            line.push_str(&quoted);
            return;
        }
        let half = text.get(..text.floor_char_boundary(text.len() / 2));
        text = half.unwrap_or_default();
    }
}

/// Now as RFC 3339, UTC, with nanoseconds.
#[must_use]
pub fn now_rfc3339() -> String {
    rfc3339(SystemTime::now())
}

/// A time as RFC 3339, UTC, with nanoseconds.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    // A clock before 1970 is no reason to end.
    humantime::format_rfc3339_nanos(time.max(SystemTime::UNIX_EPOCH)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_json_object_that_fits_a_pipe() {
        let long = "ü\"\n".repeat(4000);
        let text = line("kind", &[("a", (&long).into()), ("b", 7.into())], 3);
        assert!(text.len() <= EVENT_LINE_MAX && text.ends_with("}\n"));
        assert_eq!(text.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["event"], "kind");
        assert_eq!(value["b"], 7);
        assert_eq!(value["suppressed"], 3);
        assert!(value["a"].as_str().unwrap().starts_with("ü\"\n"));
        let time = value["time"].as_str().unwrap();
        assert!(time.ends_with('Z') && time.len() == "2006-01-02T15:04:05.000000000Z".len());
    }

    #[test]
    fn a_kind_is_printed_once_a_second() {
        let events = Events::default();
        events.emit("first", &[]);
        // However long this takes, it is less than a second after that.
        events.sink().kinds[0].1 += std::time::Duration::from_secs(3600);
        events.emit("first", &[]);
        events.emit("second", &[]);
        let sink = events.sink();
        let counts: Vec<_> = sink.kinds.iter().map(|(kind, _, n)| (*kind, *n)).collect();
        assert_eq!(counts, [("first", 1), ("second", 0)]);
    }
}
