//! Certificates change while streams run.

use std::{fs, path::Path};

use super::*;
use crate::config::{ClientCertificates, Tls};

const OFTEN: Duration = Duration::from_millis(20);

/// Puts files where others are, as rotation tools do: aside, then renamed.
fn put(files: &Tls, place: &Tls) {
    for (from, to) in [
        (&files.certificate, &place.certificate),
        (&files.key, &place.key),
        (&files.client_ca, &place.client_ca),
    ] {
        replace(&fs::read(from).unwrap(), to);
    }
}

fn replace(bytes: &[u8], to: &Path) {
    let aside = to.with_extension("new");
    fs::write(&aside, bytes).unwrap();
    fs::rename(aside, to).unwrap();
}

/// Follows copies of the server's files.
fn follow(running: &Running, dir: &Path, every: Duration) -> Tls {
    let place = Tls {
        certificate: dir.join("server.pem"),
        key: dir.join("server.key"),
        client_ca: dir.join("clients.pem"),
        client_crl: Vec::new(),
        client_certificates: ClientCertificates::Required,
    };
    put(&running.pki.tls(), &place);
    running.tls.follow(place.clone(), every).unwrap();
    place
}

async fn until_served_with(running: &Running, pki: &DevPki) {
    let leaf = CertificateDer::from_pem_file(pki.tls().certificate).unwrap();
    let served = async {
        loop {
            let config = client::config(pki, Some(Role::Reader));
            if let Ok(mut client) = Client::connect(running.api, config).await
                && client.server_certificate == leaf
                && client.call(HEALTH, &[]).await.is_ok()
            {
                return;
            }
            tokio::time::sleep(OFTEN).await;
        }
    };
    timeout(Duration::from_secs(5), served)
        .await
        .expect("the new certificates are used");
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_files_are_used_for_new_connections_and_no_stream_drops() {
    let (running, dir) = (Running::start().await, tempfile::tempdir().unwrap());
    let place = follow(&running, dir.path(), OFTEN);
    let mut old = running.client(Role::Reader).await;
    let mut stream = old.open(READ, &read("finish")).await.unwrap();
    assert!(stream.message().await.is_some());

    let next = DevPki::open(&dir.path().join("next"), &SystemClock).unwrap();
    let both = [running.pki.authority(), next.authority()].map(|path| fs::read(path).unwrap());
    replace(&both.concat(), &place.client_ca);
    replace(&fs::read(next.tls().certificate).unwrap(), &place.certificate);
    replace(&fs::read(next.tls().key).unwrap(), &place.key);
    until_served_with(&running, &next).await;
    assert_eq!(old.call(HEALTH, &[]).await.unwrap().code, Code::Ok);
    running.drain.begin();
    assert_eq!(stream.finish().await.unwrap().code, Code::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_an_authority_is_gone_so_are_the_connections_of_those_whom_it_vouched_for() {
    let (running, dir) = (Running::start().await, tempfile::tempdir().unwrap());
    let place = follow(&running, dir.path(), OFTEN);
    let mut old = running.client(Role::Reader).await;
    let mut stream = old.open(READ, &read("finish")).await.unwrap();
    assert!(stream.message().await.is_some());
    let next = DevPki::open(&dir.path().join("next"), &SystemClock).unwrap();
    put(&next.tls(), &place);
    until_served_with(&running, &next).await;
    let config = client::config_of(&next.authority(), Some(running.pki.client(Role::Reader)));
    let stranger = match Client::connect(running.api, config).await {
        Ok(mut client) => client.call(HEALTH, &[]).await.map(|reply| reply.code),
        Err(error) => Err(error),
    };
    assert!(stranger.is_err(), "{stranger:?}");
    let ended = timeout(Duration::from_secs(5), stream.finish()).await;
    let ended = ended.expect("it is cut within seconds");
    assert!(ended.is_err(), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_files_change_nothing_until_they_are_whole() {
    let (running, dir) = (Running::start().await, tempfile::tempdir().unwrap());
    let place = follow(&running, dir.path(), OFTEN);
    let next = DevPki::open(&dir.path().join("next"), &SystemClock).unwrap();
    let failures = || async {
        let metrics = client::get(running.ops, "/metrics").await;
        metrics.contains(r#"callvault_certificates_read_total{outcome="failed"}"#)
    };
    // Half of a rotation: a key that is not the certificate's.
    replace(&fs::read(next.tls().key).unwrap(), &place.key);
    let counted = async {
        while !failures().await {
            tokio::time::sleep(OFTEN).await;
        }
    };
    timeout(Duration::from_secs(5), counted).await.unwrap();
    replace(b"garbage", &place.client_ca);
    fs::remove_file(&place.certificate).unwrap();
    tokio::time::sleep(OFTEN * 5).await;
    until_served_with(&running, &running.pki).await;
    put(&next.tls(), &place);
    until_served_with(&running, &next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_reads_the_files_again_at_once() {
    let (running, dir) = (Running::start().await, tempfile::tempdir().unwrap());
    let place = follow(&running, dir.path(), Duration::from_secs(3_600));
    // The first look is taken at once.
    tokio::time::sleep(OFTEN).await;
    let next = DevPki::open(&dir.path().join("next"), &SystemClock).unwrap();
    put(&next.tls(), &place);
    let me = rustix::process::getpid();
    rustix::process::kill_process(me, rustix::process::Signal::HUP).unwrap();
    until_served_with(&running, &next).await;
}
