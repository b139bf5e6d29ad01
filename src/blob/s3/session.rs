//! A client that asks a bucket, and a new one when its credentials are stale.

use std::{error::Error, future::Future, sync::Arc};

use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, Config, IdentityCache, Region, RequestChecksumCalculation,
        ResponseChecksumValidation, SharedHttpClient, StalledStreamProtectionConfig,
        retry::{RetryConfig, RetryPartition},
        timeout::TimeoutConfig,
    },
    error::{ProvideErrorMetadata, SdkError},
};

use super::{OpenError, refusal::Refusal, settings::Settings};
use crate::aws::{self, Asker, Renewable};

/// One client at a time.
#[derive(Debug)]
pub(super) struct Session {
    settings: Arc<Settings>,
    authorities: Option<Vec<u8>>,
    http: SharedHttpClient,
    client: Renewable<Client>,
    /// Tries are rationed per store: a store that is down is not asked ever more.
    partition: RetryPartition,
}

impl Session {
    pub(super) async fn open(settings: Arc<Settings>) -> Result<Self, OpenError> {
        let authorities = authorities(&settings)?;
        let http = aws::http(settings.in_plain(), authorities.as_deref());
        let partition = RetryPartition::custom("callvault").build();
        let client = client(&settings, &http, &authorities, &partition).await;
        Ok(Self {
            settings,
            authorities,
            http,
            client: Renewable::new(client),
            partition,
        })
    }

    /// Sends a request; once more with new credentials if the store calls the old ones stale.
    pub(super) async fn send<T, E, C>(
        &self,
        operation: &'static str,
        call: impl Fn(&Client) -> C,
    ) -> Result<T, Refusal>
    where
        C: Future<Output = Result<T, SdkError<E>>>,
        E: ProvideErrorMetadata + Error + 'static,
    {
        let client = self.client.now();
        let refusal = match call(&client).await {
            Ok(answer) => return Ok(answer),
            Err(error) => Refusal::of(operation, error),
        };
        if !refusal.is_stale() || !self.renew(&client).await {
            return Err(refusal);
        }
        let client = self.client.now();
        call(&client).await.map_err(|error| Refusal::of(operation, error))
    }

    async fn renew(&self, stale: &Arc<Client>) -> bool {
        let newer = client(&self.settings, &self.http, &self.authorities, &self.partition);
        self.client.renew(stale, newer).await
    }
}

#[cfg(test)]
impl Session {
    /// Where a request for an object would go.
    pub(super) async fn address(&self, bucket: &str, key: &str) -> String {
        use aws_sdk_s3::presigning::PresigningConfig;
        use std::time::Duration;
        let soon = PresigningConfig::expires_in(Duration::from_secs(60)).expect("a short time");
        let client = self.client.now();
        let request = client.get_object().bucket(bucket).key(key).presigned(soon).await;
        request.expect("credentials are in a file").uri().to_owned()
    }

    /// Makes the bucket that the settings name, as an operator would.
    pub(super) async fn make_bucket(&self, versions: bool) {
        use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
        let (client, bucket) = (self.client.now(), &self.settings.bucket);
        client
            .create_bucket()
            .bucket(bucket)
            .send()
            .await
            .expect("a new bucket");
        if versions {
            let enabled = VersioningConfiguration::builder()
                .status(BucketVersioningStatus::Enabled)
                .build();
            let call = client.put_bucket_versioning().bucket(bucket);
            let call = call.versioning_configuration(enabled);
            call.send().await.expect("versions");
        }
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
    // Nothing is taken from the environment but credentials: an endpoint from there could redirect a vault in silence.
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(settings.region.clone()))
        .force_path_style(settings.path_style)
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
        // Bodies come from memory and go to memory under timeouts of their own.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        // We send our own, and nothing that is read needs one: everything is authenticated.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    let config = match &settings.endpoint {
        Some(url) => config.endpoint_url(url),
        None => config,
    };
    Client::from_conf(config.build())
}

fn authorities(settings: &Settings) -> Result<Option<Vec<u8>>, OpenError> {
    let read = |path: &std::path::PathBuf| {
        aws::authorities(path).map_err(|why| OpenError::Authorities {
            path: path.clone(),
            why,
        })
    };
    settings.ca_file.as_ref().map(read).transpose()
}
