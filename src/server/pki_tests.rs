use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::access::identity::PeerCertificate;

#[derive(Debug)]
struct At(i64);

impl Clock for At {
    fn now(&self) -> Timestamp {
        Timestamp(self.0 * 86_400_000_000)
    }
}

const TODAY: At = At(20_000);

fn authority_of(pki: &DevPki) -> Vec<u8> {
    fs::read(pki.authority()).unwrap()
}

#[test]
fn every_role_has_a_certificate_that_is_recognised_as_that_role() {
    let data = tempfile::tempdir().unwrap();
    let pki = DevPki::open(data.path(), &TODAY).unwrap();
    for role in Role::ALL {
        let der = CertificateDer::from_pem_file(pki.client(*role).0).unwrap();
        let peer = PeerCertificate::from_chain(&[der]);
        let principal = DevPki::identities().unwrap().principal(&peer).unwrap();
        assert_eq!(principal.alias(), role.name());
        assert!(principal.roles().iter().eq([role]));
    }
}

#[test]
fn only_the_owner_may_read_and_the_authoritys_key_is_nowhere() {
    let data = tempfile::tempdir().unwrap();
    let pki = DevPki::open(data.path(), &TODAY).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&pki.dir), 0o700);
    for entry in fs::read_dir(&pki.dir).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    assert!(!pki.key(AUTHORITY).exists());
}

#[test]
fn it_is_made_once_and_again_when_it_has_to_be() {
    let data = tempfile::tempdir().unwrap();
    let first = authority_of(&DevPki::open(data.path(), &TODAY).unwrap());
    let pki = DevPki::open(data.path(), &At(20_363)).unwrap();
    assert_eq!(authority_of(&pki), first);

    let pki = DevPki::open(data.path(), &At(20_365)).unwrap();
    let second = authority_of(&pki);
    assert_ne!(second, first, "expired");

    fs::remove_file(pki.client(Role::Auditor).1).unwrap();
    let pki = DevPki::open(data.path(), &At(20_365)).unwrap();
    assert_ne!(authority_of(&pki), second, "incomplete");
    assert!(pki.client(Role::Auditor).1.is_file());
}
