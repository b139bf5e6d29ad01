//! Who was let in and may not stay: certificates that are revoked, principals that are listed no more.

use std::{fs, path::Path};

use ::time::{Duration as Span, OffsetDateTime};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams, SanType,
    SerialNumber,
};

use super::*;
use crate::{
    config::ClientCertificates,
    domain::principal::{Principal, TenantScope},
};

const OFTEN: Duration = Duration::from_millis(20);
/// What an operator may count on here; the product looks every few seconds.
const SOON: Duration = Duration::from_secs(5);

/// An authority that revokes.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: TempDir,
    names: Vec<String>,
}

impl Authority {
    fn new(clients: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        fs::write(dir.path().join("ca.pem"), pem).unwrap();
        let issuer = Issuer::new(params, key);
        for (number, name) in clients.iter().enumerate() {
            let mut params = CertificateParams::default();
            params.serial_number = Some(SerialNumber::from(number as u64 + 1));
            params.subject_alt_names = vec![SanType::URI(spiffe(name).as_str().try_into().unwrap())];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.use_authority_key_identifier_extension = true;
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap();
            fs::write(dir.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
            fs::write(dir.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        let authority = Self {
            issuer,
            dir,
            names: clients.iter().map(|name| (*name).to_owned()).collect(),
        };
        authority.revoke(&[], Span::days(1));
        authority
    }

    fn path(&self, file: &str) -> std::path::PathBuf {
        self.dir.path().join(file)
    }

    /// A list that has these, and is out of date after some time.
    fn revoke(&self, names: &[&str], good_for: Span) {
        let now = OffsetDateTime::now_utc();
        let number = |name: &str| self.names.iter().position(|known| known == name).unwrap() as u64 + 1;
        let revoked = names.iter().map(|name| RevokedCertParams {
            serial_number: SerialNumber::from(number(name)),
            revocation_time: now - Span::minutes(1),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now - Span::hours(2),
            next_update: now + good_for,
            crl_number: SerialNumber::from(7),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).unwrap().pem().unwrap();
        replace(list.as_bytes(), &self.path("crl.pem"));
    }

    fn listed(&self) -> Listed {
        let principal = |name: &String| {
            let principal = Principal::new(name, [Role::Reader], TenantScope::All).unwrap();
            (spiffe(name), principal)
        };
        Listed::new(self.names.iter().map(principal)).unwrap()
    }

    async fn serve(&self) -> Running {
        let data = tempfile::tempdir().unwrap();
        let files = Tls {
            client_ca: self.path("ca.pem"),
            client_crl: vec![self.path("crl.pem")],
            client_certificates: ClientCertificates::Required,
            ..DevPki::open(data.path(), &SystemClock).unwrap().tls()
        };
        let callers = callers(self.listed());
        let running = Running::start_among(Limits::default(), data, &files, callers).await;
        running.tls.follow(files, OFTEN).unwrap();
        running
    }

    async fn connect(&self, running: &Running, name: &str) -> Option<Client> {
        let identity = (
            self.path(&format!("{name}.pem")),
            self.path(&format!("{name}.key")),
        );
        let config = client::config_of(&running.pki.authority(), Some(identity));
        let mut client = Client::connect(running.api, config).await.ok()?;
        // With TLS 1.3 a refusal may come after the handshake.
        client.call(HEALTH, &[]).await.ok()?;
        Some(client)
    }

    async fn until_refused(&self, running: &Running, name: &str) {
        let refused = async {
            while self.connect(running, name).await.is_some() {
                tokio::time::sleep(OFTEN).await;
            }
        };
        timeout(SOON, refused).await.expect("it is refused soon");
    }
}

fn spiffe(name: &str) -> String {
    format!("spiffe://test/{name}")
}

fn replace(bytes: &[u8], to: &Path) {
    let aside = to.with_extension("new");
    fs::write(&aside, bytes).unwrap();
    fs::rename(aside, to).unwrap();
}

async fn streaming(client: &mut Client) -> client::Call {
    let mut stream = client.open(READ, &read("for-ever")).await.unwrap();
    assert!(stream.message().await.is_some());
    stream
}

async fn expect_cut(stream: client::Call) {
    let ended = timeout(SOON, stream.finish()).await;
    let ended = ended.expect("whoever is revoked is cut soon");
    assert!(ended.is_err(), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_cut_off_and_comes_in_no_more_and_others_do_not_notice() {
    let authority = Authority::new(&["stolen", "honest"]);
    let running = authority.serve().await;
    let mut stolen = authority.connect(&running, "stolen").await.unwrap();
    let mut honest = authority.connect(&running, "honest").await.unwrap();
    let (cut, mut spared) = (
        streaming(&mut stolen).await,
        honest.open(READ, &read("finish")).await.unwrap(),
    );
    assert!(spared.message().await.is_some());
    authority.revoke(&["stolen"], Span::days(1));
    expect_cut(cut).await;
    authority.until_refused(&running, "stolen").await;
    assert_eq!(honest.call(HEALTH, &[]).await.unwrap().code, Code::Ok);
    assert!(authority.connect(&running, "honest").await.is_some());
    running.drain.begin();
    assert_eq!(spared.finish().await.unwrap().code, Code::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_out_of_date_lets_nobody_in_and_cuts_nobody_off() {
    let authority = Authority::new(&["one"]);
    let running = authority.serve().await;
    let mut one = authority.connect(&running, "one").await.unwrap();
    let stream = streaming(&mut one).await;
    authority.revoke(&[], -Span::hours(1));
    authority.until_refused(&running, "one").await;
    assert_eq!(one.call(HEALTH, &[]).await.unwrap().code, Code::Ok);
    authority.revoke(&[], Span::days(1));
    let again = async {
        while authority.connect(&running, "one").await.is_none() {
            tokio::time::sleep(OFTEN).await;
        }
    };
    timeout(SOON, again).await.expect("a new list lets it in again");
    // Whom it names is cut off, however old it is.
    authority.revoke(&["one"], -Span::hours(1));
    expect_cut(stream).await;
}

#[test]
fn two_lists_of_one_authority_are_refused() {
    let authority = Authority::new(&["one"]);
    let data = tempfile::tempdir().unwrap();
    let files = Tls {
        client_ca: authority.path("ca.pem"),
        client_crl: vec![authority.path("crl.pem"), authority.path("crl.pem")],
        client_certificates: ClientCertificates::Required,
        ..DevPki::open(data.path(), &SystemClock).unwrap().tls()
    };
    let refused = ServerTls::load(&files).unwrap_err().to_string();
    assert!(refused.contains("two are of one authority"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_listed_no_more_or_otherwise_is_cut_off() {
    let authority = Authority::new(&["gone", "changed", "kept"]);
    let running = authority.serve().await;
    let mut streams = Vec::new();
    let mut clients = Vec::new();
    for name in ["gone", "changed", "kept"] {
        let mut client = authority.connect(&running, name).await.unwrap();
        streams.push(streaming(&mut client).await);
        clients.push(client);
    }
    let principal = |name: &str, role| Principal::new(name, [role], TenantScope::All).unwrap();
    let listed = [
        (spiffe("changed"), principal("changed", Role::Uploader)),
        (spiffe("kept"), principal("kept", Role::Reader)),
    ];
    running.callers.replace_principals(Listed::new(listed).unwrap());
    let mut streams = streams.into_iter();
    expect_cut(streams.next().unwrap()).await;
    expect_cut(streams.next().unwrap()).await;
    assert_eq!(clients[2].call(HEALTH, &[]).await.unwrap().code, Code::Ok);
    let mut again = authority.connect(&running, "gone").await.unwrap();
    assert_eq!(
        again.call(READ, &read("who")).await.unwrap().reason(),
        "UNKNOWN_CERTIFICATE"
    );
}
