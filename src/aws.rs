//! What every client of AWS's APIs has in common: whom it trusts, who it is, and that it looks again when it is nobody any more.

use std::{
    fs,
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use aws_config::{
    Region, default_provider::credentials::DefaultCredentialsChain, profile::ProfileFileCredentialsProvider,
    provider_config::ProviderConfig,
};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::{
    Builder as HttpBuilder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::{sync::Mutex, time::Instant};

/// Credentials that a service refuses are looked for again at most this often.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// Who asks: the standard chain, unless one of these is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asker {
    /// What requests are signed for.
    pub(crate) region: String,
    /// A profile of the credentials file.
    pub(crate) profile: Option<String>,
    /// A credentials file in the format of AWS's.
    pub(crate) credentials_file: Option<PathBuf>,
}

/// A client, and a newer one once its credentials are called stale.
#[derive(Debug)]
pub(crate) struct Renewable<C> {
    client: ArcSwap<C>,
    renewed: Mutex<Option<Instant>>,
}

impl<C> Renewable<C> {
    /// Begins with this one.
    pub(crate) fn new(client: C) -> Self {
        Self {
            client: ArcSwap::from_pointee(client),
            renewed: Mutex::new(None),
        }
    }

    /// The one that there is.
    pub(crate) fn now(&self) -> Arc<C> {
        self.client.load_full()
    }

    /// Starts over with whatever credentials there are now: the SDK would use those it knows until they expire by its own
    /// clock, and files that it read once for ever. Tells whether there is a newer client than `stale`.
    pub(crate) async fn renew(&self, stale: &Arc<C>, make: impl Future<Output = C>) -> bool {
        let mut renewed = self.renewed.lock().await;
        if !Arc::ptr_eq(&self.client.load(), stale) {
            return true;
        }
        if renewed.is_some_and(|at| at.elapsed() < RENEWAL_INTERVAL) {
            return false;
        }
        *renewed = Some(Instant::now());
        tracing::info!("a service calls the credentials stale; looking for others");
        self.client.store(Arc::new(make.await));
        true
    }
}

/// What carries requests to an endpoint: in plain where somebody decided so, else trusting these authorities, or the machine's.
pub(crate) fn http(in_plain: bool, authorities: Option<&[u8]>) -> SharedHttpClient {
    match (authorities, in_plain) {
        (_, true) => HttpBuilder::new().build_http(),
        (Some(pem), false) => https(TrustStore::empty().with_pem_certificate(pem)),
        (None, false) => https(TrustStore::default()),
    }
}

/// The standard chain (environment, files, process, web identity, container, instance), or the profile that was asked for.
pub(crate) async fn credentials(asker: &Asker, authorities: Option<&[u8]>) -> SharedCredentialsProvider {
    let region = Region::new(asker.region.clone());
    // Token services are others' servers: the machine's authorities vouch for them, and ours may.
    let trust = match authorities {
        Some(pem) => TrustStore::default().with_pem_certificate(pem),
        None => TrustStore::default(),
    };
    let provider = ProviderConfig::default()
        .with_region(Some(region.clone()))
        .with_http_client(https(trust));
    if asker.profile.is_none() && asker.credentials_file.is_none() {
        let chain = DefaultCredentialsChain::builder()
            .region(region)
            .configure(provider);
        return SharedCredentialsProvider::new(chain.build().await);
    }
    let mut profile = ProfileFileCredentialsProvider::builder().configure(&provider);
    if let Some(file) = &asker.credentials_file {
        profile = profile.profile_files(credentials_file(file));
    }
    if let Some(name) = &asker.profile {
        profile = profile.profile_name(name);
    }
    SharedCredentialsProvider::new(profile.build())
}

#[allow(deprecated)] // the name that replaces it lies in a crate of the SDK's internals
fn credentials_file(path: &Path) -> aws_config::profile::profile_file::ProfileFiles {
    use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};
    ProfileFiles::builder()
        .with_file(ProfileFileKind::Credentials, path)
        .build()
}

/// Authorities of a file, each looked at: the SDK would panic at the first that is none.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn authorities(path: &Path) -> Result<Vec<u8>, String> {
    let pem = fs::read(path).map_err(|error| error.to_string())?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    match roots.is_empty() {
        true => Err("it holds no certificate".to_owned()),
        false => Ok(pem),
    }
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
    let http = builder.build_with_resolver(crate::blob::s3::tests::wire::Loopback);
    http
}
