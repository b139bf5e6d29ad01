//! JSON with one spelling (RFC 8785), for what has one: strings, integers, booleans, null, arrays and objects.
//!
//! Numbers with a fraction or an exponent are refused, and integers that JavaScript would round: nothing here needs them, and
//! they are what implementations differ about.

use serde_json::Value;

/// Largest integer that every JSON implementation keeps: 2^53 - 1.
const LARGEST: u64 = (1 << 53) - 1;

/// Why a text is not the one spelling of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// It is not JSON.
    #[error("not JSON")]
    Malformed,
    /// It holds a number that is no integer between -(2^53 - 1) and 2^53 - 1.
    #[error("a number that is no integer below 2^53")]
    Number,
    /// It is JSON, spelt otherwise.
    #[error("not canonical JSON")]
    Spelling,
}

/// The one spelling of a value.
///
/// # Errors
/// [`CanonicalError::Number`].
///
/// Source: RFC 8785 section 3.2.
pub fn to_bytes(value: &Value) -> Result<Vec<u8>, CanonicalError> {
    let mut out = Vec::new();
    write(value, &mut out)?;
    Ok(out)
}

/// Reads a text that must be the one spelling of what it says. A member that stands there twice is not.
///
/// # Errors
/// [`CanonicalError`] unless it is.
pub fn parse(text: &[u8]) -> Result<Value, CanonicalError> {
    let value: Value = serde_json::from_slice(text).map_err(|_| CanonicalError::Malformed)?;
    if to_bytes(&value)? == text {
        Ok(value)
    } else {
        Err(CanonicalError::Spelling)
    }
}

fn write(value: &Value, out: &mut Vec<u8>) -> Result<(), CanonicalError> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => write_integer(number, out)?,
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                separate(at, out);
                write(item, out)?;
            }
            out.push(b']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push(b'{');
            for (at, (name, member)) in members.into_iter().enumerate() {
                separate(at, out);
                write_string(name, out);
                out.push(b':');
                write(member, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn separate(at: usize, out: &mut Vec<u8>) {
    if at > 0 {
        out.push(b',');
    }
}

fn write_integer(number: &serde_json::Number, out: &mut Vec<u8>) -> Result<(), CanonicalError> {
    let size = number
        .as_u64()
        .or_else(|| number.as_i64().map(i64::unsigned_abs))
        .ok_or(CanonicalError::Number)?;
    if size > LARGEST {
        return Err(CanonicalError::Number);
    }
    out.extend_from_slice(number.to_string().as_bytes());
    Ok(())
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\0'..='\u{1f}' => out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes()),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// RFC 8785 section 3.2.3: members are sorted by UTF-16 code units, so the surrogates of the smiley come before U+FB33.
    #[test]
    fn members_are_sorted_as_the_rfc_sorts_them() {
        let value = json!({
            "\u{20ac}": "Euro Sign", "\r": "Carriage Return", "\u{fb33}": "Hebrew Letter Dalet With Dagesh",
            "1": "One", "\u{1f600}": "Emoji: Grinning Face", "\u{80}": "Control", "\u{f6}": "Latin Small Letter O With Diaeresis"
        });
        let text = String::from_utf8(to_bytes(&value).unwrap()).unwrap();
        let order = ["Carriage", "One", "Control", "Latin", "Euro", "Emoji", "Hebrew"];
        let places: Vec<_> = order.iter().map(|word| text.find(word).unwrap()).collect();
        assert!(places.is_sorted(), "{text}");
    }

    /// RFC 8785 section 3.2.2.2, of the example in 3.2.2 what is no number.
    #[test]
    fn strings_and_literals_are_spelt_as_the_rfc_spells_them() {
        let value = json!({
            "string": "\u{20ac}$\u{f}\nA'\u{42}\u{22}\u{5c}\\\"/",
            "literals": [null, true, false]
        });
        let expected =
            "{\"literals\":[null,true,false],\"string\":\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
        assert_eq!(String::from_utf8(to_bytes(&value).unwrap()).unwrap(), expected);
    }

    #[test]
    fn other_spellings_and_numbers_are_refused() {
        for (text, error) in [
            ("{\"b\":1,\"a\":2}", CanonicalError::Spelling),
            ("{\"a\":1,\"a\":1}", CanonicalError::Spelling),
            ("{ \"a\":1}", CanonicalError::Spelling),
            ("{\"a\":1}\n", CanonicalError::Spelling),
            ("\"\\u0041\"", CanonicalError::Spelling),
            ("\"\\/\"", CanonicalError::Spelling),
            ("-0", CanonicalError::Number),
            ("1.5", CanonicalError::Number),
            ("1e3", CanonicalError::Number),
            ("1.0", CanonicalError::Number),
            ("9007199254740992", CanonicalError::Number),
            ("{\"a\":1", CanonicalError::Malformed),
            ("", CanonicalError::Malformed),
        ] {
            assert_eq!(parse(text.as_bytes()), Err(error), "{text}");
        }
        for text in [
            "9007199254740991",
            "-9007199254740991",
            "0",
            "{}",
            "[]",
            "\"\u{7f}\"",
        ] {
            assert!(parse(text.as_bytes()).is_ok(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_spelling_is_read_back_to_the_same_value(texts: Vec<String>, number in -9_007_199_254_740_991i64..9_007_199_254_740_992) {
            let mut object = serde_json::Map::new();
            for text in &texts {
                object.insert(text.clone(), json!([text, number]));
            }
            let value = Value::Object(object);
            prop_assert_eq!(parse(&to_bytes(&value).unwrap()).unwrap(), value);
        }
    }
}
