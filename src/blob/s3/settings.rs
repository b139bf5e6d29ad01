//! How a bucket is reached.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// Where the bucket is, who asks, and how patiently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The bucket's name.
    pub bucket: String,
    /// What requests are signed for.
    pub region: String,
    /// `https://host[:port]`, or `http://` where somebody decided so; AWS when absent.
    pub endpoint: Option<String>,
    /// `endpoint/bucket/key` rather than `bucket.endpoint/key`.
    pub path_style: bool,
    /// PEM of the authorities that may vouch for the endpoint, instead of the machine's.
    pub ca_file: Option<PathBuf>,
    /// A profile of the credentials file, instead of the standard chain.
    pub profile: Option<String>,
    /// A credentials file in the format of AWS's, instead of the standard chain.
    pub credentials_file: Option<PathBuf>,
    /// What guards a body on its way.
    pub checksum: Checksum,
    /// Tags of every object, where the store has tags.
    pub tags: BTreeMap<String, String>,
    /// How long to wait, and how often to try.
    pub patience: Patience,
}

/// What guards a body on its way. What lies there is authenticated whatever this says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The store compares CRC-32C.
    Crc32c,
    /// Nothing but the transport.
    None,
}

/// How long to wait, and how often to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Tries of a request, the first among them.
    pub attempts: u32,
    /// About how long to wait before the second try; doubles from there.
    pub backoff: Duration,
    /// Until a connection is made.
    pub connect: Duration,
    /// Until an answer begins once a request is on its way, and between two pieces of a body.
    pub read: Duration,
    /// Until a call is over, with all its tries. A completion, which may copy all of an object, has five times as long.
    pub operation: Duration,
}

impl Settings {
    /// Whether bodies travel where others could change them, so that their digests must be signed.
    pub(super) fn in_plain(&self) -> bool {
        self.endpoint
            .as_deref()
            .is_some_and(|url| url.starts_with("http://"))
    }

    /// The tags as a header carries them.
    pub(super) fn tagging(&self) -> Option<String> {
        let pairs: Vec<String> = self
            .tags
            .iter()
            .map(|(key, value)| format!("{}={}", encode(key), encode(value)))
            .collect();
        (!pairs.is_empty()).then(|| pairs.join("&"))
    }
}

impl Patience {
    /// How long a completion may take.
    pub(super) fn completion(&self) -> Duration {
        self.operation * 5
    }
}

/// Percent-encoding of everything that is not unreserved (RFC 3986, section 2.3).
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_percent_encoded() {
        assert_eq!(encode("a-Z.9_~"), "a-Z.9_~");
        assert_eq!(encode("cost centre/4+1=é"), "cost%20centre%2F4%2B1%3D%C3%A9");
    }
}
