//! Who holds the root, as an operator writes it: a directory, or a table that names a provider.
//!
//! Secrets are not among the keys: a token's PIN is in a file or in the environment, credentials are where AWS's tools look.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{ConfigError, at_least_in, at_most_in, s3};

/// Who holds the root. `root = "DIR"` is short for the provider `file` with that directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Root {
    /// Whose sections count.
    pub provider: RootKind,
    /// A directory.
    pub file: Option<RootFile>,
    /// A token.
    pub pkcs11: Option<RootPkcs11>,
    /// AWS KMS.
    pub aws_kms: Option<Box<RootAwsKms>>,
}

/// A root provider's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootKind {
    /// A directory.
    File,
    /// A token that speaks PKCS#11.
    Pkcs11,
    /// AWS KMS.
    AwsKms,
}

impl RootKind {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Pkcs11 => "pkcs11",
            Self::AwsKms => "aws_kms",
        }
    }
}

impl fmt::Display for RootKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for RootKind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::File, Self::Pkcs11, Self::AwsKms];
        let named = all.into_iter().find(|kind| kind.name() == text);
        named.ok_or("a root provider is file, pkcs11 or aws_kms")
    }
}

/// A root in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootFile {
    /// Where: outside `data`, and never in a backup of it.
    pub dir: PathBuf,
}

/// A root on a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootPkcs11 {
    /// The module that speaks to it, a shared library.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// What its objects' labels begin with.
    #[serde(default = "default_name")]
    pub name: String,
    /// A file with its user's PIN, which only the vault may read.
    pub pin_file: Option<PathBuf>,
    /// A variable of the environment with the PIN, instead.
    pub pin_env: Option<String>,
    /// Longest call.
    #[serde(default = "default_call_seconds")]
    pub call_seconds: u64,
}

/// A root in AWS KMS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootAwsKms {
    /// The region whose KMS it is.
    pub region: String,
    /// What aliases begin with.
    #[serde(default = "default_name")]
    pub name: String,
    /// `https://host[:port]`; AWS when absent.
    pub endpoint: Option<String>,
    /// Lets `endpoint` be plain HTTP to another machine: epoch keys travel on it.
    #[serde(default)]
    pub allow_http: bool,
    /// PEM of the authorities that vouch for the endpoint, instead of the machine's.
    pub ca_file: Option<PathBuf>,
    /// A profile, instead of the standard credential chain.
    pub profile: Option<String>,
    /// A credentials file, instead of the standard credential chain.
    pub credentials_file: Option<PathBuf>,
    /// Days between a key's destruction and its coming true; it may be called back until then.
    #[serde(default = "default_deletion_days")]
    pub deletion_days: u8,
    /// Tries of a request, the first among them.
    #[serde(default = "default_attempts")]
    pub attempts: u32,
    /// Longest wait for a connection.
    #[serde(default = "default_connect_seconds")]
    pub connect_seconds: u64,
    /// Longest wait for an answer.
    #[serde(default = "default_read_seconds")]
    pub read_seconds: u64,
    /// Longest request, with all its tries.
    #[serde(default = "default_operation_seconds")]
    pub operation_seconds: u64,
}

fn default_name() -> String {
    "callvault".to_owned()
}

fn default_call_seconds() -> u64 {
    10
}

fn default_deletion_days() -> u8 {
    7
}

fn default_attempts() -> u32 {
    4
}

fn default_connect_seconds() -> u64 {
    5
}

fn default_read_seconds() -> u64 {
    10
}

fn default_operation_seconds() -> u64 {
    30
}

impl Root {
    /// A directory.
    pub fn directory(dir: impl Into<PathBuf>) -> Self {
        Self {
            provider: RootKind::File,
            file: Some(RootFile { dir: dir.into() }),
            pkcs11: None,
            aws_kms: None,
        }
    }

    /// The provider's directory, if that is what it is.
    pub fn dir(&self) -> Option<&Path> {
        let file = self.file.as_ref().filter(|_| self.provider == RootKind::File);
        file.map(|file| file.dir.as_path())
    }

    /// Whether there is a section for a provider.
    pub fn has(&self, kind: RootKind) -> bool {
        match kind {
            RootKind::File => self.file.is_some(),
            RootKind::Pkcs11 => self.pkcs11.is_some(),
            RootKind::AwsKms => self.aws_kms.is_some(),
        }
    }

    /// Providers that have a section and are not the one that counts: where the root was, or where it may go.
    pub fn others(&self) -> impl Iterator<Item = RootKind> {
        let all = [RootKind::File, RootKind::Pkcs11, RootKind::AwsKms];
        all.into_iter()
            .filter(|kind| *kind != self.provider && self.has(*kind))
    }

    /// What is said if a provider's section is not there.
    pub(crate) fn missing_section(section: RootKind) -> ConfigError {
        let message = format!("the provider {section} needs the section [root.{section}]");
        ConfigError::value(format!("root.{section}"), message)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !self.has(self.provider) {
            return Err(Self::missing_section(self.provider));
        }
        // One that is not in use may be the next: it is checked all the same.
        self.pkcs11.as_ref().map_or(Ok(()), RootPkcs11::check)?;
        self.aws_kms.as_ref().map_or(Ok(()), |kms| kms.check())
    }
}

impl RootPkcs11 {
    fn check(&self) -> Result<(), ConfigError> {
        const TABLE: &str = "root.pkcs11";
        check_name(TABLE, &self.name)?;
        if self.token.is_empty() || self.token.len() > 32 {
            return refuse(TABLE, "token", "must be a token's label: 1 to 32 bytes");
        }
        match (&self.pin_file, &self.pin_env) {
            (Some(_), None) => {}
            (None, Some(name)) if !name.is_empty() && !name.contains(['=', '\0']) => {}
            (None, Some(_)) => return refuse(TABLE, "pin_env", "must be the name of a variable"),
            _ => {
                return refuse(
                    TABLE,
                    "pin_file",
                    "say where the PIN is, in one way: pin_file or pin_env",
                );
            }
        }
        at_least_in(TABLE, "call_seconds", self.call_seconds, 1)?;
        at_most_in(TABLE, "call_seconds", self.call_seconds, 60)
    }
}

impl RootAwsKms {
    fn check(&self) -> Result<(), ConfigError> {
        const TABLE: &str = "root.aws_kms";
        check_name(TABLE, &self.name)?;
        s3::check_region(TABLE, &self.region)?;
        s3::check_endpoint(
            TABLE,
            self.endpoint.as_deref(),
            self.ca_file.is_some(),
            self.allow_http,
        )?;
        let days = u64::from(self.deletion_days);
        at_least_in(TABLE, "deletion_days", days, 7)?;
        at_most_in(TABLE, "deletion_days", days, 30)?;
        at_least_in(TABLE, "attempts", u64::from(self.attempts), 1)?;
        at_most_in(TABLE, "attempts", u64::from(self.attempts), 10)?;
        at_least_in(TABLE, "connect_seconds", self.connect_seconds, 1)?;
        at_least_in(TABLE, "read_seconds", self.read_seconds, 1)?;
        at_least_in(
            TABLE,
            "operation_seconds",
            self.operation_seconds,
            self.read_seconds,
        )?;
        at_most_in(TABLE, "operation_seconds", self.operation_seconds, 60)
    }
}

/// Part of aliases and labels.
fn check_name(table: &str, name: &str) -> Result<(), ConfigError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    if (1..=64).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with("aws") {
        return Ok(());
    }
    refuse(
        table,
        "name",
        "must be 1 to 64 letters, digits, hyphens and underscores, and not begin with aws",
    )
}

fn refuse(table: &str, key: &str, message: &str) -> Result<(), ConfigError> {
    Err(ConfigError::value(format!("{table}.{key}"), message))
}

impl<'de> Deserialize<'de> for Root {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DirectoryOrTable)
    }
}

struct DirectoryOrTable;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    provider: RootKind,
    file: Option<RootFile>,
    pkcs11: Option<RootPkcs11>,
    aws_kms: Option<Box<RootAwsKms>>,
}

impl<'de> Visitor<'de> for DirectoryOrTable {
    type Value = Root;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a directory, or a table that names a provider")
    }

    fn visit_str<E>(self, dir: &str) -> Result<Root, E> {
        Ok(Root::directory(dir))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Root, A::Error> {
        let Table {
            provider,
            file,
            pkcs11,
            aws_kms,
        } = Table::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Root {
            provider,
            file,
            pkcs11,
            aws_kms,
        })
    }
}
