//! From a client certificate or a token to a principal.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use super::{policy::PolicySet, session::Session, token::Issuers};
use crate::{
    crypto::context::sha256,
    domain::{
        clock::Clock,
        error::{Error, Kind},
        principal::Principal,
    },
};

/// The certificates that a peer came with, verified; perhaps none. Parsed once per connection.
#[derive(Clone, Default)]
pub struct PeerCertificate {
    names: Vec<String>,
    chain: Vec<CertificateDer<'static>>,
    sha256: [u8; 32],
}

impl PeerCertificate {
    /// Of a peer's chain, leaf first; none if there is none.
    pub fn from_chain(chain: &[CertificateDer<'_>]) -> Self {
        let Some(leaf) = chain.first() else {
            return Self::default();
        };
        Self {
            names: names(leaf),
            chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
            sha256: sha256(leaf),
        }
    }

    /// URI SANs as `scheme://...` and DNS SANs as they stand; none of a leaf that cannot be parsed, so that nobody is recognised
    /// by it.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Whether the peer came without.
    pub fn is_none(&self) -> bool {
        self.chain.is_empty()
    }

    /// The SHA-256 of the leaf, by which tokens are bound to it (RFC 8705 section 3.1); zeros where there is none.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }
}

fn names(leaf: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else {
        return Vec::new();
    };
    let names: Vec<String> = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.iter().filter_map(name).collect(),
        Ok(None) | Err(_) => Vec::new(),
    };
    // An X.509 SVID has one SPIFFE id (SPIFFE X509-SVID section 2).
    let spiffe = names.iter().filter(|name| name.starts_with("spiffe://")).count();
    if spiffe > 1 { Vec::new() } else { names }
}

/// DNS names may be people's; they are counted, not shown.
impl fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerCertificate({} names)", self.names.len())
    }
}

fn name(general: &GeneralName<'_>) -> Option<String> {
    match general {
        // Neither is ever taken for the other: who may vouch for DNS names may not for URIs.
        GeneralName::URI(uri) => Some((*uri).to_owned()).filter(|uri| uri.contains("://")),
        GeneralName::DNSName(dns) => Some((*dns).to_owned()).filter(|dns| !dns.contains([':', '/'])),
        _ => None,
    }
}

/// Recognises the certificates that the configuration lists, by exact name.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    principals: HashMap<String, Arc<Principal>>,
}

impl Listed {
    /// From pairs of a certificate's name and its principal.
    ///
    /// # Errors
    /// [`Repeated`] if a name is listed twice.
    pub fn new(listed: impl IntoIterator<Item = (String, Principal)>) -> Result<Self, Repeated> {
        let mut principals = HashMap::new();
        for (name, principal) in listed {
            if principals.insert(name.clone(), Arc::new(principal)).is_some() {
                return Err(Repeated(name));
            }
        }
        Ok(Self { principals })
    }
}

impl Listed {
    /// The principal that this certificate belongs to, or `None` for a stranger. A certificate whose names belong to two
    /// principals is a stranger: guessing would grant one's roles to the other.
    pub fn principal(&self, peer: &PeerCertificate) -> Option<Arc<Principal>> {
        let mut known = peer.names().iter().filter_map(|name| self.principals.get(name));
        let first = known.next()?;
        known.all(|other| other == first).then(|| Arc::clone(first))
    }
}

/// Who calls, and for how long that is known.
#[derive(Clone, Debug)]
pub struct Identified {
    /// Who, and by which policies it is judged.
    pub session: Session,
    /// For how long; `None` as long as the connection lasts.
    pub left: Option<Duration>,
}

/// Recognises callers, by lists that can be replaced while calls run: a call is judged by those of its beginning, by policies too, and
/// connections learn that the lists were replaced.
#[derive(Debug)]
pub struct Callers {
    listed: ArcSwap<Listed>,
    issuers: ArcSwap<Issuers>,
    policies: ArcSwap<PolicySet>,
    clock: Arc<dyn Clock>,
    changed: watch::Sender<()>,
}

impl Callers {
    /// Begins with these.
    pub fn new(listed: Listed, issuers: Issuers, policies: PolicySet, clock: Arc<dyn Clock>) -> Self {
        Self {
            listed: ArcSwap::from_pointee(listed),
            issuers: ArcSwap::from_pointee(issuers),
            policies: ArcSwap::from_pointee(policies),
            clock,
            changed: watch::Sender::new(()),
        }
    }

    /// Judges calls by these policies, from the next on.
    pub fn judge_by(&self, policies: PolicySet) {
        self.policies.store(Arc::new(policies));
    }

    /// The policies of now.
    pub fn policies(&self) -> Arc<PolicySet> {
        self.policies.load_full()
    }

    /// Takes these principals instead, from the next call on.
    pub fn replace_principals(&self, listed: Listed) {
        self.listed.store(Arc::new(listed));
        self.changed.send_replace(());
    }

    /// Takes the tokens of these issuers instead, from the next call on.
    pub fn replace_issuers(&self, issuers: Issuers) {
        self.issuers.store(Arc::new(issuers));
    }

    /// Whether tokens are taken at all.
    pub fn take_tokens(&self) -> bool {
        self.issuers.load().all().next().is_some()
    }

    /// The issuers of now.
    pub fn issuers(&self) -> Arc<Issuers> {
        self.issuers.load_full()
    }

    /// Changes whenever somebody may be recognised otherwise than before.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The principal of a certificate, or `None` for a stranger.
    pub fn by_certificate(&self, peer: &PeerCertificate) -> Option<Arc<Principal>> {
        self.listed.load().principal(peer)
    }

    /// Who makes a call: whoever its token says, if it has one, otherwise whose certificate it is. A token that is refused is not
    /// taken for none.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`] says what is wrong, and [`Kind::Unavailable`] that an issuer cannot be asked.
    pub fn identify(&self, peer: &PeerCertificate, token: Option<&str>) -> Result<Identified, Error> {
        if let Some(token) = token {
            let bearer = self.issuers.load().bearer(token, peer)?;
            let left = bearer.until.micros().saturating_sub(self.clock.now().micros());
            return Ok(Identified {
                session: Session::new(bearer.principal, self.policies()),
                left: Some(Duration::from_micros(u64::try_from(left).unwrap_or_default())),
            });
        }
        if peer.is_none() {
            return Err(Error::new(
                Kind::Unauthenticated,
                "CREDENTIALS_REQUIRED",
                "say who calls: with a client certificate, or a token in the metadata key authorization",
            ));
        }
        let principal = self.by_certificate(peer).ok_or_else(stranger)?;
        Ok(Identified {
            session: Session::new(principal, self.policies()),
            left: None,
        })
    }
}

fn stranger() -> Error {
    Error::new(
        Kind::Unauthenticated,
        "UNKNOWN_CERTIFICATE",
        "the client certificate belongs to no principal; have its URI or DNS name listed under [[principals]]",
    )
}

/// A certificate's name listed twice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("certificate is listed twice, list it once certificate={0}")]
pub struct Repeated(pub String);

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;
    use crate::domain::{
        clock::SystemClock,
        principal::{Role, TenantScope},
    };

    fn certificate(sans: &[SanType]) -> PeerCertificate {
        let mut params = CertificateParams::default();
        params.subject_alt_names = sans.to_vec();
        let leaf = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        PeerCertificate::from_chain(&[leaf.der().clone()])
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn listed() -> Listed {
        let principal = |alias: &str, role| Principal::new(alias, [role], TenantScope::All).unwrap();
        Listed::new([
            ("spiffe://x/up".to_owned(), principal("up", Role::Uploader)),
            ("read.example".to_owned(), principal("read", Role::Reader)),
        ])
        .unwrap()
    }

    fn with_certificates(listed: Listed) -> Callers {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let policies = PolicySet::default_set("MX".parse().unwrap()).unwrap();
        Callers::new(listed, Issuers::new([], Arc::clone(&clock)), policies, clock)
    }

    fn alias(sans: &[SanType]) -> Option<String> {
        let principal = listed().principal(&certificate(sans))?;
        Some(principal.alias().to_owned())
    }

    #[test]
    fn uris_and_dns_names_are_recognised() {
        assert_eq!(alias(&[uri("spiffe://x/up")]).as_deref(), Some("up"));
        let dns = SanType::DnsName("read.example".try_into().unwrap());
        assert_eq!(alias(&[dns]).as_deref(), Some("read"));
    }

    #[test]
    fn only_the_exact_name_is_recognised() {
        for stranger in [
            "spiffe://x/up/more",
            "spiffe://x/u",
            "spiffe://X/up",
            "spiffe://x/up/",
        ] {
            assert_eq!(alias(&[uri(stranger)]), None, "{stranger}");
        }
        assert_eq!(alias(&[]), None);
        let mail = SanType::Rfc822Name("spiffe://x/up".try_into().unwrap());
        assert_eq!(alias(&[mail]), None);
    }

    #[test]
    fn a_uri_is_never_taken_for_a_dns_name_and_two_spiffe_ids_are_none() {
        assert_eq!(alias(&[uri("read.example")]), None);
        assert_eq!(alias(&[uri("spiffe://x/up"), uri("spiffe://x/other")]), None);
        assert_eq!(
            alias(&[uri("spiffe://x/up"), uri("https://x/other")]).as_deref(),
            Some("up")
        );
    }

    #[test]
    fn a_certificate_of_two_principals_is_nobodys() {
        let dns = SanType::DnsName("read.example".try_into().unwrap());
        assert_eq!(alias(&[uri("spiffe://x/up"), dns]), None);
    }

    #[test]
    fn a_replaced_list_counts_from_the_next_call_on_and_connections_learn_of_it() {
        let peer = certificate(&[uri("spiffe://x/up")]);
        let callers = with_certificates(listed());
        let changes = callers.changes();
        assert!(callers.identify(&peer, None).is_ok());
        assert!(!changes.has_changed().unwrap());
        callers.replace_principals(Listed::default());
        let refused = callers.identify(&peer, None).unwrap_err();
        assert_eq!(refused.reason, "UNKNOWN_CERTIFICATE");
        assert!(changes.has_changed().unwrap());
    }

    #[test]
    fn whoever_says_nothing_of_himself_is_told_what_to_say() {
        let callers = with_certificates(listed());
        let refused = callers.identify(&PeerCertificate::default(), None).unwrap_err();
        assert_eq!(
            (refused.kind, refused.reason),
            (Kind::Unauthenticated, "CREDENTIALS_REQUIRED")
        );
    }

    #[test]
    fn garbage_is_a_stranger() {
        let garbage = PeerCertificate::from_chain(&[CertificateDer::from_slice(b"garbage")]);
        assert!(!garbage.is_none());
        assert_eq!(listed().principal(&garbage), None);
    }

    #[test]
    fn a_name_is_listed_once() {
        let principal = Principal::new("a", [Role::Reader], TenantScope::All).unwrap();
        let twice = [("n".to_owned(), principal.clone()), ("n".to_owned(), principal)];
        assert_eq!(Listed::new(twice).unwrap_err(), Repeated("n".to_owned()));
    }
}
