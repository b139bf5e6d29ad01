//! Callers with tokens, from an identity provider to a record and back.

use std::{fs, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use callvault::{
    access::token::{ClaimGrant, GrantedTenants, Issuer, IssuerSpec, Issuers, KeySet, TokenAlgorithm},
    client::{Client, ClientConfig, Identity, Retry},
    domain::{
        clock::{Clock, SystemClock},
        principal::Role,
    },
    proto::v1::{BeginUploadRequest, get_record_request::Name},
    testing::issuer::TokenSigner,
};
use serde_json::json;
use tonic::Code;

use crate::harness::*;

const ISSUER: &str = "https://login.example";

/// A world that takes the tokens of one issuer, and that issuer's key.
async fn world() -> (World, TokenSigner) {
    let signer = TokenSigner::ed25519();
    let grant = |value: &str, role| ClaimGrant {
        claim: "realm.roles".to_owned(),
        value: value.to_owned(),
        roles: [role].into(),
        tenants: GrantedTenants::Claim("tenants".to_owned()),
    };
    let issuer = Issuer::new(IssuerSpec {
        issuer: ISSUER.to_owned(),
        audience: "callvault".to_owned(),
        algorithms: vec![TokenAlgorithm::EdDsa],
        skew: Duration::ZERO,
        life: Duration::from_secs(3_600),
        must_be_bound: false,
        alias_claim: "sub".to_owned(),
        alias_prefix: "idp-".to_owned(),
        agent_claim: Some("ext.agent".to_owned()),
        teams_claim: Some("teams".to_owned()),
        country: "MX".parse().ok(),
        grants: vec![grant("readers", Role::Reader), grant("uploaders", Role::Uploader)],
        stale: Duration::from_secs(3_600),
    });
    let keys = KeySet::parse(signer.set("k").as_bytes()).unwrap();
    issuer.learn(keys, SystemClock.now());
    let plan = Plan {
        issuers: Issuers::new([Arc::new(issuer)], Arc::new(SystemClock)),
        ..Plan::default()
    };
    (World::start_with(plan).await, signer)
}

/// A token of whoever has a role for some tenants, for so many seconds.
fn token(signer: &TokenSigner, role: &str, tenants: &[&str], life: i64) -> String {
    let now = SystemClock.now().micros() / 1_000_000;
    signer.token(
        "k",
        &json!({"iss": ISSUER, "aud": "callvault", "sub": "a-7", "exp": now + life, "tenants": tenants,
                "realm": {"roles": [role]}}),
    )
}

fn config(world: &World, file: &Path) -> ClientConfig {
    ClientConfig {
        identity: Identity {
            token_file: Some(file.to_owned()),
            ..Identity::default()
        },
        ..world.config(Role::Reader)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bearer_reads_what_its_claims_are_worth_and_for_no_other_tenant() {
    let (world, signer) = world().await;
    let record = world.put(descriptor(), "content").await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, token(&signer, "readers", &[TENANT], 600)).unwrap();
    let client = Client::connect(&config(&world, &file))
        .await
        .unwrap()
        .with_retry(Retry::NEVER);
    let id = || Name::RecordId(record.record_id.clone());
    let found = client.get_record(TENANT, id()).await.unwrap();
    assert_eq!(found.record_id, record.record_id);
    let elsewhere = client.get_record(OTHER, id()).await.unwrap_err();
    assert_eq!(elsewhere.code(), Some(Code::NotFound));
    // The file says who calls from now on.
    fs::write(&file, token(&signer, "uploaders", &[TENANT], 600)).unwrap();
    let told = async {
        loop {
            match client.get_record(TENANT, id()).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => return error,
            }
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(10), told).await.unwrap();
    assert_eq!(
        (refused.code(), refused.reason()),
        (Some(Code::PermissionDenied), Some("ROLE_DENIED"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_from_token_to_token() {
    const LIFE: i64 = 3;
    let (world, signer) = world().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let renew = move || {
        let aside = file.with_extension("new");
        fs::write(&aside, token(&signer, "uploaders", &[TENANT], LIFE)).unwrap();
        fs::rename(aside, &file).unwrap();
        file.clone()
    };
    let config = config(&world, &renew());
    let renewing = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            renew();
        }
    });
    let client = Client::connect(&config).await.unwrap();
    let begin = BeginUploadRequest {
        tenant_id: TENANT.to_owned(),
        descriptor: Some(descriptor()),
        ..Default::default()
    };
    let mut upload = client.begin_resumable(begin).await.unwrap();
    let content = content(160 * 350);
    for packet in content.chunks(160) {
        upload.write(Bytes::copy_from_slice(packet)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let record = upload.commit(None).await.unwrap();
    renewing.abort();
    assert_eq!(record.size_bytes, content.len() as i64);
}
