//! The public Rust client.
//!
//! ```no_run
//! # async fn example() -> Result<(), callvault::client::ClientError> {
//! use callvault::{client::{Client, ClientFile, Content}, proto::v1::PutRecordingSpec};
//!
//! let file = ClientFile::load("callvault-data/client.toml".as_ref())?;
//! let uploader = Client::connect(&file.role("uploader")?).await?;
//! let spec = PutRecordingSpec { tenant_id: "dev".to_owned(), ..Default::default() };
//! let record = uploader.put_recording(spec, Content::file("call.wav"), None).await?;
//!
//! let reader = Client::connect(&file.role("reader")?).await?;
//! let mut download = reader.read_recording("dev", &record.record_id, 0, 0).await?;
//! while let Some(bytes) = download.next().await? {
//!     // authenticated by the vault, in order; an error instead of a short stream
//! #   let _ = bytes;
//! }
//! # Ok(()) }
//! ```
//!
//! It knows the generated code and the wire, and nothing of how a vault works inside.

mod config;
mod connect;
mod content;
mod download;
mod error;
mod messages;
mod records;
mod retry;
mod tenants;
mod upload;

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use crate::proto::v1::{
    record_service_client::RecordServiceClient, tenant_service_client::TenantServiceClient,
};

pub use config::{ClientConfig, ClientFile, ConfigError, Identity};
pub use content::Content;
pub use download::Download;
pub use error::{ClientError, Refusal};
pub use retry::Retry;
pub use tonic::Code;
pub use upload::Upload;

/// The metadata key of a call's purpose.
const PURPOSE_KEY: &str = "callvault-purpose";
/// Longest answer: a page of 1,000 records whose descriptors are 32 KiB each.
const ANSWER_BYTES: usize = 64 << 20;

/// A connection to a vault under one identity. Cheap to clone; clones share the connection.
///
/// The connection is made anew by itself when it is lost or has reached the server's greatest age.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    purpose: Option<MetadataValue<Ascii>>,
    retry: Retry,
}

type Declaring = InterceptedService<Channel, DeclarePurpose>;

impl Client {
    /// Connects over TLS, so that a wrong address or certificate shows at once.
    ///
    /// # Errors
    /// [`ClientError::Config`] if a file or the purpose is unfit; [`ClientError::Connect`] if nobody answers or trusts.
    pub async fn connect(config: &ClientConfig) -> Result<Self, ClientError> {
        let purpose = config.purpose.as_deref().map(term).transpose()?;
        Ok(Self {
            channel: connect::channel(config).await?,
            purpose,
            retry: Retry::default(),
        })
    }

    /// The same connection for another purpose: a DPV term such as `LegalCompliance`.
    ///
    /// # Errors
    /// [`ClientError::Config`] if it cannot be the value of a metadata key.
    pub fn for_purpose(&self, purpose: &str) -> Result<Self, ClientError> {
        Ok(Self {
            purpose: Some(term(purpose)?),
            ..self.clone()
        })
    }

    /// The same connection with other patience.
    #[must_use]
    pub fn with_retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// The connection itself, for the health and reflection services and for calls that are not wrapped here.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    fn record_service(&self) -> RecordServiceClient<Declaring> {
        RecordServiceClient::with_interceptor(self.channel.clone(), self.declare())
            .max_decoding_message_size(ANSWER_BYTES)
    }

    fn tenant_service(&self) -> TenantServiceClient<Declaring> {
        TenantServiceClient::with_interceptor(self.channel.clone(), self.declare())
            .max_decoding_message_size(ANSWER_BYTES)
    }

    fn declare(&self) -> DeclarePurpose {
        DeclarePurpose(self.purpose.clone())
    }
}

fn term(purpose: &str) -> Result<MetadataValue<Ascii>, ConfigError> {
    purpose.parse().map_err(|_| ConfigError::Purpose)
}

/// Puts the purpose into every call's metadata.
#[derive(Clone, Debug)]
struct DeclarePurpose(Option<MetadataValue<Ascii>>);

impl Interceptor for DeclarePurpose {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(purpose) = &self.0 {
            request.metadata_mut().insert(PURPOSE_KEY, purpose.clone());
        }
        Ok(request)
    }
}
