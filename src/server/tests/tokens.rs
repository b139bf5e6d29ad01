//! Callers that come with tokens.

use serde_json::{Value, json};

use super::*;
use crate::{
    access::token::{ClaimGrant, GrantedTenants, Issuer, IssuerSpec, Issuers, KeySet, TokenAlgorithm},
    config::ClientCertificates,
    domain::{clock::Clock, principal::TenantScope},
    testing::issuer::TokenSigner,
};

const ISSUER: &str = "https://login.example";

fn spec() -> IssuerSpec {
    IssuerSpec {
        issuer: ISSUER.to_owned(),
        audience: "callvault".to_owned(),
        algorithms: vec![TokenAlgorithm::Es256],
        skew: Duration::ZERO,
        life: Duration::from_secs(3_600),
        must_be_bound: false,
        alias_claim: "sub".to_owned(),
        alias_prefix: "idp-".to_owned(),
        agent_claim: Some("ext.agent".to_owned()),
        teams_claim: Some("teams".to_owned()),
        country: None,
        grants: vec![ClaimGrant {
            claim: "scope".to_owned(),
            value: "read".to_owned(),
            roles: [Role::Reader].into(),
            tenants: GrantedTenants::Scope(TenantScope::All),
        }],
        stale: Duration::from_secs(3_600),
    }
}

fn seconds() -> i64 {
    SystemClock.now().micros() / 1_000_000
}

fn claims(life: i64) -> Value {
    json!({"iss": ISSUER, "aud": "callvault", "sub": "agent-7", "scope": "read", "exp": seconds() + life})
}

/// A server where certificates are optional, and its issuer's key.
async fn serve(clients: ClientCertificates) -> (Running, TokenSigner) {
    let (data, signer) = (tempfile::tempdir().unwrap(), TokenSigner::p256());
    let files = Tls {
        client_certificates: clients,
        ..DevPki::open(data.path(), &SystemClock).unwrap().tls()
    };
    let issuer = Arc::new(Issuer::new(spec()));
    issuer.learn(
        KeySet::parse(signer.set("k").as_bytes()).unwrap(),
        SystemClock.now(),
    );
    let issuers = Issuers::new([issuer], Arc::new(SystemClock));
    let callers = callers_of(DevPki::identities().unwrap(), issuers);
    let running = Running::start_among(Limits::default(), data, &files, callers).await;
    (running, signer)
}

async fn without_certificate(running: &Running) -> Client {
    let config = client::config(&running.pki, None);
    Client::connect(running.api, config).await.unwrap()
}

fn bearing(token: &str) -> String {
    format!("Bearer {token}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_a_certificate_is_whoever_its_token_says() {
    let (running, signer) = serve(ClientCertificates::Optional).await;
    let mut client = without_certificate(&running).await;
    let header = bearing(&signer.token("k", &claims(600)));
    fn who(value: &str) -> [(&str, &str); 1] {
        [("authorization", value)]
    }
    let reply = client.open_with(READ, &read("who"), &who(&header)).await.unwrap();
    assert_eq!(reply.finish().await.unwrap().message, "idp-agent-7");
    // No word of who it is, and none that counts.
    let nothing = client.call(READ, &read("who")).await.unwrap();
    assert_eq!(
        (nothing.code, nothing.reason()),
        (Code::Unauthenticated, "CREDENTIALS_REQUIRED".to_owned())
    );
    let forged = bearing(&TokenSigner::p256().token("k", &claims(600)));
    let expired = bearing(&signer.token("k", &claims(-1)));
    for (value, reason) in [
        (forged.as_str(), "TOKEN_SIGNATURE"),
        (&expired, "TOKEN_EXPIRED"),
        ("Basic amFuZTpzZWNyZXQ=", "TOKEN_MALFORMED"),
        ("Bearer", "TOKEN_MALFORMED"),
        ("", "TOKEN_MALFORMED"),
    ] {
        let reply = client.call_with(HEALTH, &who(value)).await.unwrap();
        assert_eq!(
            (reply.code, reply.reason()),
            (Code::Unauthenticated, reason.to_owned()),
            "{value}"
        );
    }
    let twice = [("authorization", header.as_str()), ("authorization", &header)];
    assert_eq!(
        client.call_with(HEALTH, &twice).await.unwrap().reason(),
        "TOKEN_MALFORMED"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_says_who_calls_also_over_a_certificate_and_a_bad_one_is_not_taken_for_none() {
    let (running, signer) = serve(ClientCertificates::Required).await;
    let mut client = running.client(Role::Uploader).await;
    let header = bearing(&signer.token("k", &claims(600)));
    let reply = client
        .open_with(READ, &read("who"), &[("authorization", &header)])
        .await
        .unwrap();
    assert_eq!(reply.finish().await.unwrap().message, "idp-agent-7");
    let expired = bearing(&signer.token("k", &claims(-1)));
    let reply = client
        .call_with(HEALTH, &[("authorization", &expired)])
        .await
        .unwrap();
    assert_eq!(reply.reason(), "TOKEN_EXPIRED");
    let reply = client.open_with(READ, &read("who"), &[]).await.unwrap();
    assert_eq!(reply.finish().await.unwrap().message, "uploader");
    // Where certificates are required, a token opens no door.
    let config = client::config(&running.pki, None);
    let refused = match Client::connect(running.api, config).await {
        Ok(mut client) => client
            .call_with(HEALTH, &[("authorization", &header)])
            .await
            .is_err(),
        Err(_) => true,
    };
    assert!(refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_tries_tokens_loses_the_connection_after_a_few() {
    let (running, signer) = serve(ClientCertificates::Optional).await;
    let mut client = without_certificate(&running).await;
    let (good, bad) = (
        bearing(&signer.token("k", &claims(600))),
        bearing(&TokenSigner::p256().token("k", &claims(600))),
    );
    for _ in 0..3 {
        // Somebody who is recognised now and then is no guesser.
        for _ in 0..10 {
            let reply = client
                .call_with(HEALTH, &[("authorization", &bad)])
                .await
                .unwrap();
            assert_eq!(reply.reason(), "TOKEN_SIGNATURE");
        }
        client
            .call_with(HEALTH, &[("authorization", &good)])
            .await
            .unwrap();
    }
    let mut answered = 0;
    while client.call_with(HEALTH, &[("authorization", &bad)]).await.is_ok() {
        answered += 1;
        assert!(answered < 40, "it is never cut");
    }
    assert!(answered >= 10, "{answered}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_the_token_that_it_began_with() {
    let (running, signer) = serve(ClientCertificates::Optional).await;
    let mut client = without_certificate(&running).await;
    let header = bearing(&signer.token("k", &claims(4)));
    let mut stream = client
        .open_with(READ, &read("for-ever"), &[("authorization", &header)])
        .await
        .unwrap();
    assert!(stream.message().await.is_some());
    let reply = timeout(Duration::from_secs(12), stream.finish())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (reply.code, reply.reason()),
        (Code::Unauthenticated, "TOKEN_EXPIRED".to_owned())
    );
}
