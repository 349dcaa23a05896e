//! Bytes in JSON, which has none: text where they are UTF-8, and base64 under another name where they are not.

use crate::job::command::exec::STDERR_TAIL;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// What the names of fields end with whose values are base64.
pub const BASE64_SUFFIX: &str = "_base64";

/// Adds a field with these bytes: `name` if they are UTF-8, else `name_base64`.
pub fn insert_bytes(fields: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => fields.insert(name.into(), text.into()),
        Err(_) => fields.insert(
            format!("{name}{BASE64_SUFFIX}"),
            STANDARD.encode(bytes).into(),
        ),
    };
}

/// Adds a field with the end of what a program wrote to stderr. Where that was cut, the rest of a character is left away.
pub fn insert_tail(fields: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    let is_cut = bytes.len() >= STDERR_TAIL;
    let inside = |byte: &&u8| matches!(**byte, 0x80..=0xbf);
    let rest = bytes.iter().take(3).take_while(inside).count();
    match std::str::from_utf8(&bytes[rest..]) {
        Ok(text) if is_cut => drop(fields.insert(name.into(), text.into())),
        _ => insert_bytes(fields, name, bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bytes_come_back_from_json_whatever_they_are() {
        let mut fields = Map::new();
        insert_bytes(&mut fields, "text", "caf\u{e9}\n".as_bytes());
        insert_bytes(&mut fields, "latin", b"caf\xe9\n");
        insert_bytes(&mut fields, "empty", b"");
        let expected = json!({ "text": "caf\u{e9}\n", "latin_base64": "Y2Fm6Qo=", "empty": "" });
        assert_eq!(Value::from(fields), expected);
    }

    #[test]
    fn a_tail_that_was_cut_within_a_character_is_text() {
        let long = "\u{20ac}".repeat(STDERR_TAIL);
        let mut fields = Map::new();
        let tail = &long.as_bytes()[long.len() - STDERR_TAIL..];
        insert_tail(&mut fields, "stderr", tail);
        let text = fields["stderr"].as_str().unwrap();
        assert!(text.len() > STDERR_TAIL - 3 && long.ends_with(text));
        // What is short was not cut.
        insert_tail(&mut fields, "short", b"\x80x");
        assert_eq!(fields["short_base64"], "gHg=");
    }
}
