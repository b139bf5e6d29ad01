//! A bucket that speaks S3, as an operator writes it. Credentials are not among the keys: they come from where AWS's tools look.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{ConfigError, at_least_in, at_most_in};

/// Tags that an operator may set; S3 has room for ten, and transfers will need some.
const TAGS_MAX: usize = 5;

/// A bucket that speaks S3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    /// The bucket's name. It must exist, and belong to this vault alone.
    pub bucket: String,
    /// Requests are signed for it.
    #[serde(default = "default_region")]
    pub region: String,
    /// `https://host[:port]`; AWS when absent.
    pub endpoint: Option<String>,
    /// Lets `endpoint` be plain HTTP to another machine.
    #[serde(default)]
    pub allow_http: bool,
    /// `endpoint/bucket/key` rather than `bucket.endpoint/key`; by default where there is an endpoint.
    pub path_style: Option<bool>,
    /// PEM of the authorities that vouch for the endpoint, instead of the machine's.
    pub ca_file: Option<PathBuf>,
    /// A profile, instead of the standard credential chain.
    pub profile: Option<String>,
    /// A credentials file, instead of the standard credential chain.
    pub credentials_file: Option<PathBuf>,
    /// What guards a body on its way.
    #[serde(default)]
    pub checksum: S3Checksum,
    /// Tags of every object, where the store has tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Tries of a request, the first among them.
    #[serde(default = "default_attempts")]
    pub attempts: u32,
    /// Longest wait for a connection.
    #[serde(default = "default_connect_seconds")]
    pub connect_seconds: u64,
    /// Longest wait for an answer, and between two pieces of one.
    #[serde(default = "default_read_seconds")]
    pub read_seconds: u64,
    /// Longest call, with all its tries.
    #[serde(default = "default_operation_seconds")]
    pub operation_seconds: u64,
}

/// What guards a body on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum S3Checksum {
    /// The store compares CRC-32C.
    #[default]
    Crc32c,
    /// Nothing but the transport: for stores that do not know CRC-32C.
    None,
}

fn default_region() -> String {
    "us-east-1".to_owned()
}

fn default_attempts() -> u32 {
    4
}

fn default_connect_seconds() -> u64 {
    5
}

fn default_read_seconds() -> u64 {
    30
}

fn default_operation_seconds() -> u64 {
    120
}

impl S3 {
    /// Whether the bucket's name is part of the path.
    pub fn is_path_style(&self) -> bool {
        self.path_style.unwrap_or_else(|| self.endpoint.is_some())
    }

    /// Whether both are one bucket, as far as names tell: one endpoint may have several.
    pub(super) fn is_same_place(&self, other: &Self) -> bool {
        let host = |s3: &Self| {
            let endpoint = s3.endpoint.as_deref().unwrap_or_default().to_ascii_lowercase();
            let host = endpoint.split_once("://").map(|(_, host)| host.to_owned());
            host.unwrap_or(endpoint).trim_end_matches('/').to_owned()
        };
        self.bucket == other.bucket && host(self) == host(other)
    }

    pub(super) fn check(&self, table: &str) -> Result<(), ConfigError> {
        self.check_bucket(table)?;
        check_endpoint(
            table,
            self.endpoint.as_deref(),
            self.ca_file.is_some(),
            self.allow_http,
        )?;
        self.check_tags(table)?;
        check_region(table, &self.region)?;
        let least = |key: &str, value, least| at_least_in(table, key, value, least);
        least("attempts", u64::from(self.attempts), 1)?;
        at_most_in(table, "attempts", u64::from(self.attempts), 10)?;
        least("connect_seconds", self.connect_seconds, 1)?;
        least("read_seconds", self.read_seconds, 1)?;
        // Else no answer could be waited for as long as read_seconds says.
        least("operation_seconds", self.operation_seconds, self.read_seconds)?;
        at_most_in(table, "operation_seconds", self.operation_seconds, 3_600)
    }

    fn check_bucket(&self, table: &str) -> Result<(), ConfigError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
        if (3..=63).contains(&self.bucket.len()) && self.bucket.bytes().all(plain) {
            return Ok(());
        }
        refuse(
            table,
            "bucket",
            "must be a bucket's name: 3 to 63 letters, digits, dots and hyphens",
        )
    }

    fn check_tags(&self, table: &str) -> Result<(), ConfigError> {
        if self.tags.len() > TAGS_MAX {
            return refuse(
                table,
                "tags",
                "must be at most 5: S3 has room for ten, and the vault will need some",
            );
        }
        let plain = |text: &str| {
            text.chars()
                .all(|c| c.is_ascii_alphanumeric() || " +-=._:/@".contains(c))
        };
        for (key, value) in &self.tags {
            let key_fits = (1..=128).contains(&key.len()) && !key.starts_with("aws:");
            if !key_fits || value.len() > 256 || !plain(key) || !plain(value) {
                return refuse(
                    table,
                    "tags",
                    "must have keys of 1 to 128 and values of at most 256 letters, digits, spaces and + - = . _ : / @",
                );
            }
        }
        Ok(())
    }
}

fn refuse(table: &str, key: &str, message: &str) -> Result<(), ConfigError> {
    Err(ConfigError::value(format!("{table}.{key}"), message))
}

/// What requests are signed for.
pub(super) fn check_region(table: &str, region: &str) -> Result<(), ConfigError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if !region.is_empty() && region.bytes().all(plain) {
        return Ok(());
    }
    Err(ConfigError::value(
        format!("{table}.region"),
        "must be a region's name, e.g. us-east-1",
    ))
}

/// Where a service of AWS's, or one that speaks like it, is.
pub(super) fn check_endpoint(
    table: &str,
    endpoint: Option<&str>,
    has_ca_file: bool,
    allow_http: bool,
) -> Result<(), ConfigError> {
    let refuse = |key: &str, message: &str| Err(ConfigError::value(format!("{table}.{key}"), message));
    let Some(endpoint) = endpoint else {
        return match has_ca_file {
            true => refuse(
                "ca_file",
                "is for an endpoint of your own; AWS's authorities are the machine's",
            ),
            false => Ok(()),
        };
    };
    let Some((scheme, host)) = host_of(endpoint) else {
        return refuse(
            "endpoint",
            "must be https://host[:port], without path, user or query",
        );
    };
    match scheme {
        "https" => Ok(()),
        _ if has_ca_file => refuse("ca_file", "is of no use with an http:// endpoint"),
        _ if allow_http || is_loopback(&host) => Ok(()),
        _ => refuse(
            "endpoint",
            "plain http to another machine shows and risks everything but content; use https, or set allow_http = true",
        ),
    }
}

/// Scheme and host of an endpoint that has nothing else but a port.
fn host_of(endpoint: &str) -> Option<(&'static str, String)> {
    let uri: http::Uri = endpoint.parse().ok()?;
    let scheme = match uri.scheme_str()? {
        "https" => "https",
        "http" => "http",
        _ => return None,
    };
    let authority = uri.authority()?;
    let bare = matches!(uri.path(), "" | "/") && uri.query().is_none() && !authority.as_str().contains('@');
    (bare && !authority.host().is_empty()).then(|| (scheme, authority.host().to_owned()))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
