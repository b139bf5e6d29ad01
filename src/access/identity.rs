//! From a client certificate to a principal.

use std::{collections::HashMap, fmt, sync::Arc};

use arc_swap::ArcSwap;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use crate::domain::principal::Principal;

/// The names that a verified leaf certificate carries. Parsed once per connection.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PeerCertificate {
    names: Vec<String>,
}

impl PeerCertificate {
    /// The URI and DNS subject alternative names of a DER-encoded leaf; none if it cannot be parsed, so that nobody
    /// is recognised by it.
    pub fn from_der(der: &[u8]) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return Self::default();
        };
        let names = match certificate.subject_alternative_name() {
            Ok(Some(extension)) => extension.value.general_names.iter().filter_map(name).collect(),
            Ok(None) | Err(_) => Vec::new(),
        };
        Self { names }
    }

    /// URI SANs as `scheme://...` and DNS SANs as they stand.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

/// DNS names may be people's; they are counted, not shown.
impl fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerCertificate({} names)", self.names.len())
    }
}

fn name(general: &GeneralName<'_>) -> Option<String> {
    match general {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        GeneralName::DNSName(dns) => Some((*dns).to_owned()),
        _ => None,
    }
}

/// Recognises callers.
pub trait Identify: Send + Sync + fmt::Debug {
    /// The principal that this certificate belongs to, or `None` for a stranger.
    fn principal(&self, peer: &PeerCertificate) -> Option<Arc<Principal>>;
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

impl Identify for Listed {
    /// A certificate whose names belong to two principals is a stranger: guessing would grant one's roles to the other.
    fn principal(&self, peer: &PeerCertificate) -> Option<Arc<Principal>> {
        let mut known = peer.names().iter().filter_map(|name| self.principals.get(name));
        let first = known.next()?;
        known.all(|other| other == first).then(|| Arc::clone(first))
    }
}

/// Recognises whom a list names that can be replaced while calls run: a call is judged by the list of its beginning.
#[derive(Debug, Default)]
pub struct Replaceable(ArcSwap<Listed>);

impl Replaceable {
    /// Begins with this list.
    pub fn new(listed: Listed) -> Self {
        Self(ArcSwap::from_pointee(listed))
    }

    /// Takes this list instead, from the next call on.
    pub fn replace(&self, listed: Listed) {
        self.0.store(Arc::new(listed));
    }
}

impl Identify for Replaceable {
    fn principal(&self, peer: &PeerCertificate) -> Option<Arc<Principal>> {
        self.0.load().principal(peer)
    }
}

/// A certificate's name listed twice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("certificate is listed twice, list it once certificate={0}")]
pub struct Repeated(pub String);

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;
    use crate::domain::principal::{Role, TenantScope};

    fn certificate(sans: &[SanType]) -> PeerCertificate {
        let mut params = CertificateParams::default();
        params.subject_alt_names = sans.to_vec();
        let leaf = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        PeerCertificate::from_der(leaf.der())
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
    fn a_certificate_of_two_principals_is_nobodys() {
        let dns = SanType::DnsName("read.example".try_into().unwrap());
        assert_eq!(alias(&[uri("spiffe://x/up"), dns]), None);
    }

    #[test]
    fn a_replaced_list_counts_from_the_next_call_on() {
        let peer = certificate(&[uri("spiffe://x/up")]);
        let replaceable = Replaceable::new(listed());
        assert!(replaceable.principal(&peer).is_some());
        replaceable.replace(Listed::default());
        assert!(replaceable.principal(&peer).is_none());
    }

    #[test]
    fn garbage_is_a_stranger() {
        assert_eq!(listed().principal(&PeerCertificate::from_der(b"garbage")), None);
    }

    #[test]
    fn a_name_is_listed_once() {
        let principal = Principal::new("a", [Role::Reader], TenantScope::All).unwrap();
        let twice = [("n".to_owned(), principal.clone()), ("n".to_owned(), principal)];
        assert_eq!(Listed::new(twice).unwrap_err(), Repeated("n".to_owned()));
    }
}
