//! A client that asks KMS, and what it means when KMS says no.

use std::{error::Error, fmt, future::Future, sync::Arc};

use aws_sdk_kms::{
    Client,
    config::{
        BehaviorVersion, Config, IdentityCache, Region, SharedHttpClient, StalledStreamProtectionConfig,
        retry::{RetryConfig, RetryPartition},
        timeout::TimeoutConfig,
    },
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
};

use crate::{
    aws::{self, Asker, Renewable},
    keys::provider::ProviderError,
};

use super::Settings;

/// Longest message that is kept.
const MESSAGE_LEN: usize = 300;

/// One client at a time.
#[derive(Debug)]
pub(super) struct Session {
    settings: Arc<Settings>,
    authorities: Option<Vec<u8>>,
    http: SharedHttpClient,
    client: Renewable<Client>,
    partition: RetryPartition,
}

impl Session {
    pub(super) async fn open(settings: Arc<Settings>) -> Result<Self, ProviderError> {
        let read = |path: &std::path::PathBuf| {
            aws::authorities(path).map_err(|why| {
                ProviderError::Refused(format!(
                    "root.aws_kms.ca_file holds no usable certificates; give it PEM of the endpoint's authority path={}: {why}",
                    path.display()
                ))
            })
        };
        let authorities = settings.ca_file.as_ref().map(read).transpose()?;
        let in_plain = settings
            .endpoint
            .as_ref()
            .is_some_and(|url| url.starts_with("http://"));
        let http = aws::http(in_plain, authorities.as_deref());
        let partition = RetryPartition::custom("callvault-root").build();
        let client = client(&settings, &http, &authorities, &partition).await;
        Ok(Self {
            settings,
            authorities,
            http,
            client: Renewable::new(client),
            partition,
        })
    }

    /// Sends a request; once more with new credentials if KMS calls the old ones stale.
    pub(super) async fn send<T, E, C>(
        &self,
        operation: &'static str,
        call: impl Fn(&Client) -> C,
    ) -> Result<T, Refusal>
    where
        C: Future<Output = Result<T, SdkError<E>>>,
        E: ProvideErrorMetadata + Error + 'static,
    {
        let used = self.client.now();
        let refusal = match call(&used).await {
            Ok(answer) => return Ok(answer),
            Err(error) => Refusal::of(operation, error),
        };
        let newer = client(&self.settings, &self.http, &self.authorities, &self.partition);
        if !refusal.is_stale() || !self.client.renew(&used, newer).await {
            return Err(refusal);
        }
        let used = self.client.now();
        call(&used).await.map_err(|error| Refusal::of(operation, error))
    }
}

async fn client(
    settings: &Settings,
    http: &SharedHttpClient,
    authorities: &Option<Vec<u8>>,
    partition: &RetryPartition,
) -> Client {
    let patience = settings.patience;
    let asker = Asker {
        region: settings.region.clone(),
        profile: settings.profile.clone(),
        credentials_file: settings.credentials_file.clone(),
    };
    // Nothing is taken from the environment but credentials: an endpoint from there would be given the epoch keys.
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(settings.region.clone()))
        .http_client(http.clone())
        .credentials_provider(aws::credentials(&asker, authorities.as_deref()).await)
        .identity_cache(IdentityCache::lazy().build())
        .retry_partition(partition.clone())
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(patience.attempts)
                .with_initial_backoff(patience.backoff),
        )
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(patience.connect)
                .read_timeout(patience.read)
                .operation_timeout(patience.operation)
                .build(),
        )
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    let config = match &settings.endpoint {
        Some(url) => config.endpoint_url(url),
        None => config,
    };
    Client::from_conf(config.build())
}

/// A request that failed. Holds nothing secret: neither headers nor bodies.
#[derive(Debug)]
pub(super) struct Refusal {
    operation: &'static str,
    code: Option<String>,
    text: String,
}

impl Refusal {
    fn of<E>(operation: &'static str, error: SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        let (code, text) = match &error {
            SdkError::ServiceError(service) => {
                let (code, message) = (service.err().code(), service.err().message());
                let message = message.map_or_else(|| format!("status={status:?}"), str::to_owned);
                (code.map(str::to_owned), message)
            }
            _ => (None, DisplayErrorContext(&error).to_string()),
        };
        Self {
            operation,
            code,
            text: text.chars().take(MESSAGE_LEN).collect(),
        }
    }

    fn is(&self, codes: &[&str]) -> bool {
        self.code.as_deref().is_some_and(|code| codes.contains(&code))
    }

    fn is_stale(&self) -> bool {
        self.is(&[
            "ExpiredToken",
            "ExpiredTokenException",
            "InvalidClientTokenId",
            "UnrecognizedClientException",
        ])
    }

    /// There is no such key, or no such alias.
    pub(super) fn is_missing(&self) -> bool {
        self.is(&["NotFoundException"])
    }

    /// What was given to be opened is not what was sealed.
    pub(super) fn is_unauthentic(&self) -> bool {
        self.is(&["InvalidCiphertextException", "IncorrectKeyException"])
    }

    /// The alias is another key's.
    pub(super) fn is_taken(&self) -> bool {
        self.is(&["AlreadyExistsException"])
    }

    /// The key is in a state that does not allow it.
    pub(super) fn is_in_another_state(&self) -> bool {
        self.is(&["KMSInvalidStateException"])
    }

    /// The vault's policy does not allow it.
    pub(super) fn is_denied(&self) -> bool {
        self.is(&["AccessDeniedException"])
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operation={}", self.operation)?;
        if let Some(code) = &self.code {
            write!(f, " code={code}")?;
        }
        write!(f, " message={:?}", self.text)?;
        match self.is_denied() {
            true => f.write_str("; docs/operations.md has the policy that a vault needs"),
            false => Ok(()),
        }
    }
}

impl Error for Refusal {}

impl From<Refusal> for ProviderError {
    /// Missing is not destroyed: who asks for a key by its ARN says so; a key that was made a moment ago may be missing as well.
    fn from(refusal: Refusal) -> Self {
        Self::unavailable(refusal)
    }
}
