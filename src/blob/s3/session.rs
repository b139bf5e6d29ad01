//! A client that asks a bucket, and a new one when its credentials are stale.

use std::{error::Error, fs, future::Future, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use aws_config::{
    default_provider::credentials::DefaultCredentialsChain, profile::ProfileFileCredentialsProvider,
    provider_config::ProviderConfig,
};
use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, Config, IdentityCache, Region, RequestChecksumCalculation,
        ResponseChecksumValidation, SharedCredentialsProvider, SharedHttpClient,
        StalledStreamProtectionConfig,
        retry::{RetryConfig, RetryPartition},
        timeout::TimeoutConfig,
    },
    error::{ProvideErrorMetadata, SdkError},
};
use aws_smithy_http_client::{
    Builder as HttpBuilder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::{sync::Mutex, time::Instant};

use super::{OpenError, refusal::Refusal, settings::Settings};

/// Credentials that a store refuses are looked for again at most this often.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// One client at a time.
#[derive(Debug)]
pub(super) struct Session {
    settings: Arc<Settings>,
    authorities: Option<Vec<u8>>,
    http: SharedHttpClient,
    client: ArcSwap<Client>,
    renewed: Mutex<Option<Instant>>,
    /// Tries are rationed per store: a store that is down is not asked ever more.
    partition: RetryPartition,
}

impl Session {
    pub(super) async fn open(settings: Arc<Settings>) -> Result<Self, OpenError> {
        let authorities = authorities(&settings)?;
        let http = match (&authorities, settings.in_plain()) {
            (_, true) => HttpBuilder::new().build_http(),
            (Some(pem), false) => https(TrustStore::empty().with_pem_certificate(pem.as_slice())),
            (None, false) => https(TrustStore::default()),
        };
        let partition = RetryPartition::custom("callvault").build();
        let client = client(&settings, &http, &authorities, &partition).await;
        Ok(Self {
            settings,
            authorities,
            http,
            client: ArcSwap::from_pointee(client),
            renewed: Mutex::new(None),
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
        let client = self.client.load_full();
        let refusal = match call(&client).await {
            Ok(answer) => return Ok(answer),
            Err(error) => Refusal::of(operation, error),
        };
        if !refusal.is_stale() || !self.renew(&client).await {
            return Err(refusal);
        }
        let client = self.client.load_full();
        call(&client).await.map_err(|error| Refusal::of(operation, error))
    }

    /// Starts over with whatever credentials there are now: the SDK would use those it knows until they expire by its own
    /// clock, and files that it read once for ever. Tells whether there is a newer client than `stale`.
    async fn renew(&self, stale: &Arc<Client>) -> bool {
        let mut renewed = self.renewed.lock().await;
        if !Arc::ptr_eq(&self.client.load(), stale) {
            return true;
        }
        if renewed.is_some_and(|at| at.elapsed() < RENEWAL_INTERVAL) {
            return false;
        }
        *renewed = Some(Instant::now());
        tracing::info!("the store calls the credentials stale; looking for others");
        let client = client(&self.settings, &self.http, &self.authorities, &self.partition).await;
        self.client.store(Arc::new(client));
        true
    }
}

#[cfg(test)]
impl Session {
    /// Where a request for an object would go.
    pub(super) async fn address(&self, bucket: &str, key: &str) -> String {
        use aws_sdk_s3::presigning::PresigningConfig;
        let soon = PresigningConfig::expires_in(Duration::from_secs(60)).expect("a short time");
        let client = self.client.load_full();
        let request = client.get_object().bucket(bucket).key(key).presigned(soon).await;
        request.expect("credentials are in a file").uri().to_owned()
    }

    /// Makes the bucket that the settings name, as an operator would.
    pub(super) async fn make_bucket(&self, versions: bool) {
        use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
        let (client, bucket) = (self.client.load_full(), &self.settings.bucket);
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
    // Nothing is taken from the environment but credentials: an endpoint from there could redirect a vault in silence.
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(settings.region.clone()))
        .force_path_style(settings.path_style)
        .http_client(http.clone())
        .credentials_provider(credentials(settings, authorities).await)
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

/// The standard chain (environment, files, process, web identity, container, instance), or the profile that was asked for.
async fn credentials(settings: &Settings, authorities: &Option<Vec<u8>>) -> SharedCredentialsProvider {
    let region = Region::new(settings.region.clone());
    // Token services are others' servers: the machine's authorities vouch for them, and ours may.
    let trust = match authorities {
        Some(pem) => TrustStore::default().with_pem_certificate(pem.as_slice()),
        None => TrustStore::default(),
    };
    let provider = ProviderConfig::default()
        .with_region(Some(region.clone()))
        .with_http_client(https(trust));
    if settings.profile.is_none() && settings.credentials_file.is_none() {
        let chain = DefaultCredentialsChain::builder()
            .region(region)
            .configure(provider);
        return SharedCredentialsProvider::new(chain.build().await);
    }
    let mut profile = ProfileFileCredentialsProvider::builder().configure(&provider);
    if let Some(file) = &settings.credentials_file {
        profile = profile.profile_files(credentials_file(file));
    }
    if let Some(name) = &settings.profile {
        profile = profile.profile_name(name);
    }
    SharedCredentialsProvider::new(profile.build())
}

#[allow(deprecated)] // the name that replaces it lies in a crate of the SDK's internals
fn credentials_file(path: &std::path::Path) -> aws_config::profile::profile_file::ProfileFiles {
    use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};
    ProfileFiles::builder()
        .with_file(ProfileFileKind::Credentials, path)
        .build()
}

fn https(trust: TrustStore) -> SharedHttpClient {
    let trusting = TlsContext::builder().with_trust_store(trust).build();
    let builder = HttpBuilder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        // Nothing in a trust store can be wrong here; if ever it is, the machine decides whom to trust.
        .tls_context(trusting.unwrap_or_default());
    #[cfg(not(test))]
    let http = builder.build_https();
    // In tests every name is this machine's, so that a bucket can be a part of one.
    #[cfg(test)]
    let http = builder.build_with_resolver(super::tests::wire::Loopback);
    http
}

/// The configured authorities, each looked at: the SDK would panic at the first that is none.
fn authorities(settings: &Settings) -> Result<Option<Vec<u8>>, OpenError> {
    let Some(path) = &settings.ca_file else {
        return Ok(None);
    };
    let refuse = |why: String| OpenError::Authorities {
        path: path.clone(),
        why,
    };
    let pem = fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| refuse(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(refuse("it holds no certificate".to_owned()));
    }
    Ok(Some(pem))
}
