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
//! Content that is still being recorded, or that must survive a bad network or a restarted server, goes in by [`Resumable`]:
//!
//! ```no_run
//! # use callvault::{client::{Client, ClientError}, proto::v1::{BeginUploadRequest, Descriptor}};
//! # async fn example(client: Client, mut call: impl Iterator<Item = bytes::Bytes>) -> Result<(), ClientError> {
//! let request = BeginUploadRequest {
//!     tenant_id: "dev".to_owned(),
//!     descriptor: Some(Descriptor { conversation_id: "crm-4711".to_owned(), ..Default::default() }),
//!     request_id: "call-1".to_owned(),
//!     ..Default::default()
//! };
//! let mut upload = client.begin_resumable(request).await?;
//! while let Some(packet) = call.next() {
//!     upload.write(packet).await?; // waits only while more is not durable than may be kept
//! }
//! let record = upload.commit(None).await?;
//! # Ok(()) }
//! ```
//!
//! It knows the generated code and the wire, and nothing of how a vault works inside.

mod certificates;
mod config;
mod connect;
mod content;
mod download;
mod erasure;
mod error;
mod keys;
mod messages;
mod records;
mod resumable;
mod retry;
mod tenants;
mod token;
mod upload;

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use crate::proto::v1::{
    erasure_service_client::ErasureServiceClient, key_service_client::KeyServiceClient,
    record_service_client::RecordServiceClient, tenant_service_client::TenantServiceClient,
};

use token::TokenFile;

pub use config::{ClientConfig, ClientFile, ConfigError, Identity};
pub use content::Content;
pub use download::Download;
pub use error::{ClientError, Refusal};
pub use resumable::Resumable;
pub use retry::Retry;
pub use tonic::Code;
pub use upload::Upload;

/// The metadata key of a call's purpose.
const PURPOSE_KEY: &str = "callvault-purpose";
/// The metadata key of a call's token (RFC 6750).
const TOKEN_KEY: &str = "authorization";
/// Longest answer: a page of 1,000 records whose descriptors are 32 KiB each.
const ANSWER_BYTES: usize = 64 << 20;

/// A connection to a vault under one identity. Cheap to clone; clones share the connection.
///
/// The connection is made anew by itself when it is lost or has reached the server's greatest age.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    says: Says,
    retry: Option<Retry>,
}

type Declaring = InterceptedService<Channel, Says>;

impl Client {
    /// Connects over TLS, so that a wrong address or certificate shows at once.
    ///
    /// # Errors
    /// [`ClientError::Config`] if a file or the purpose is unfit; [`ClientError::Connect`] if nobody answers or trusts.
    pub async fn connect(config: &ClientConfig) -> Result<Self, ClientError> {
        let purpose = config.purpose.as_deref().map(term).transpose()?;
        Ok(Self {
            channel: connect::channel(config).await?,
            says: Says {
                purpose,
                token: config.identity.token_file.clone().map(TokenFile::new),
            },
            retry: None,
        })
    }

    /// The same connection for another purpose: a DPV term such as `LegalCompliance`.
    ///
    /// # Errors
    /// [`ClientError::Config`] if it cannot be the value of a metadata key.
    pub fn for_purpose(&self, purpose: &str) -> Result<Self, ClientError> {
        Ok(Self {
            says: Says {
                purpose: Some(term(purpose)?),
                ..self.says.clone()
            },
            ..self.clone()
        })
    }

    /// The same connection with other patience than [`Retry::default`], and [`Retry::PATIENT`] for uploads in many calls.
    #[must_use]
    pub fn with_retry(self, retry: Retry) -> Self {
        Self {
            retry: Some(retry),
            ..self
        }
    }

    /// The connection itself, for the health and reflection services and for calls that are not wrapped here.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    fn usual_patience(&self) -> Retry {
        self.retry.unwrap_or_default()
    }

    /// For uploads in many calls.
    fn patience(&self) -> Retry {
        self.retry.unwrap_or(Retry::PATIENT)
    }

    fn record_service(&self) -> RecordServiceClient<Declaring> {
        RecordServiceClient::with_interceptor(self.channel.clone(), self.says.clone())
            .max_decoding_message_size(ANSWER_BYTES)
    }

    fn tenant_service(&self) -> TenantServiceClient<Declaring> {
        TenantServiceClient::with_interceptor(self.channel.clone(), self.says.clone())
            .max_decoding_message_size(ANSWER_BYTES)
    }

    fn key_service(&self) -> KeyServiceClient<Declaring> {
        KeyServiceClient::with_interceptor(self.channel.clone(), self.says.clone())
            .max_decoding_message_size(ANSWER_BYTES)
    }

    fn erasure_service(&self) -> ErasureServiceClient<Declaring> {
        ErasureServiceClient::with_interceptor(self.channel.clone(), self.says.clone())
            .max_decoding_message_size(ANSWER_BYTES)
    }
}

fn term(purpose: &str) -> Result<MetadataValue<Ascii>, ConfigError> {
    purpose.parse().map_err(|_| ConfigError::Purpose)
}

/// What every call's metadata says: why, and who asks, where that is a token.
#[derive(Clone, Debug)]
struct Says {
    purpose: Option<MetadataValue<Ascii>>,
    token: Option<TokenFile>,
}

impl Interceptor for Says {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(purpose) = &self.purpose {
            request.metadata_mut().insert(PURPOSE_KEY, purpose.clone());
        }
        if let Some(token) = &self.token {
            request.metadata_mut().insert(TOKEN_KEY, token.header()?);
        }
        Ok(request)
    }
}
