//! User and password in a URL: as a header, and out of sight.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;

/// The value of `Authorization` or `Proxy-Authorization` (RFC 7617) for
/// `user:password`, each percent-encoded; none for the empty text. Marked
/// sensitive, so that `Debug` does not show it.
pub(super) fn basic(userinfo: &str) -> Result<Option<HeaderValue>, String> {
    if userinfo.is_empty() {
        return Ok(None);
    }
    let (mut pair, password) = percent_decoded(userinfo)?;
    pair.push(b':');
    pair.extend(password);
    let text = format!("Basic {}", STANDARD.encode(pair));
    let mut value = HeaderValue::try_from(text).map_err(|error| error.to_string())?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// User and password of what [`basic`] made, the longer one first: it may hold the
/// other.
pub(super) fn basic_pair(encoded: &str) -> Option<[String; 2]> {
    let pair = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = pair.split_once(':')?;
    let mut pair = [user.to_owned(), password.to_owned()];
    pair.sort_by_key(|text| std::cmp::Reverse(text.len()));
    Some(pair)
}

/// User and password of `user:password`, each percent-encoded.
pub(super) fn percent_decoded(userinfo: &str) -> Result<(Vec<u8>, Vec<u8>), String> {
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    Ok((percent_decode(user)?, percent_decode(password)?))
}

fn percent_decode(text: &str) -> Result<Vec<u8>, String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(bytes.next())
                .zip(hex(bytes.next()))
                .map(|(high, low)| high * 16 + low)
                .ok_or("a % in its credentials is not followed by two hex digits")?,
            _ => byte,
        });
    }
    Ok(decoded)
}

fn hex(digit: Option<u8>) -> Option<u8> {
    let value = char::from(digit?).to_digit(16)?;
    u8::try_from(value).ok()
}
