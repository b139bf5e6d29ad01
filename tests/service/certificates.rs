//! Certificates over the wire: who may have one, and that it holds with what the vault publishes.

use callvault::{
    domain::{
        erasure::{Ground, Target},
        principal::Role,
    },
    evidence::{
        keys::{KeySet, KeyUse, PublishedKey},
        verify::verify,
    },
    proto::v1::*,
    vault::ErasureSpec,
};

use crate::harness::*;

fn ask(tenant: &str, erasure: &str, stage: CertificateStage) -> GetCertificateRequest {
    GetCertificateRequest {
        tenant_id: tenant.to_owned(),
        erasure_id: erasure.to_owned(),
        stage: stage.into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_takes_a_certificate_and_the_keys_that_prove_it() {
    let world = World::start().await;
    let record = world.put(descriptor(), "content").await;
    let spec = ErasureSpec {
        tenant: TENANT.parse().unwrap(),
        actor: "compliance".to_owned(),
        target: Target::Records(vec![record.record_id.parse().unwrap()]),
        ground: Ground::A17,
        reference: "case-7".parse().unwrap(),
        grace_micros: Some(0),
        expected_set: None,
        request: None,
    };
    let erasure = world.vault.request_erasure(spec).await.unwrap().id.to_string();
    let auditor = world.client(Role::Auditor).await;
    let any = CertificateStage::Unspecified;
    let answer = auditor.get_certificate(ask(TENANT, &erasure, any)).await.unwrap();
    assert_eq!(answer.stage(), CertificateStage::Effective);
    let keys = auditor
        .list_signing_keys()
        .await
        .unwrap()
        .into_iter()
        .map(|key| PublishedKey {
            key_use: match key.r#use() {
                SigningKeyUse::Certificate => KeyUse::Certificate,
                _ => KeyUse::LogCheckpoint,
            },
            public_key: key.public_key[..].try_into().unwrap(),
        });
    let proven = verify(&answer.certificate, &KeySet::new(keys.collect())).unwrap();
    assert_eq!(
        proven.certificate.target.blobs.0[0].records[0].record,
        record.record_id
    );
    let again = auditor
        .get_certificate(ask(TENANT, &erasure, CertificateStage::Effective))
        .await;
    assert_eq!(again.unwrap(), answer);

    let refused = auditor
        .get_certificate(ask(TENANT, &erasure, CertificateStage::Final))
        .await;
    assert_eq!(why(refused), is("STAGE_NOT_REACHED", ""));
    let elsewhere = auditor.get_certificate(ask(OTHER, &erasure, any)).await;
    assert_eq!(why(elsewhere), is("NOT_FOUND", ""));
    let unknown = auditor.get_certificate(ask(TENANT, &record.record_id, any)).await;
    assert_eq!(why(unknown), is("NOT_FOUND", ""));
    let malformed = auditor.get_certificate(ask(TENANT, "x", any)).await;
    assert_eq!(why(malformed), is("INVALID_FIELD", "erasure_id"));
    let reader = world.client(Role::Reader).await;
    let forbidden = reader.get_certificate(ask(TENANT, &erasure, any)).await;
    assert_eq!(why(forbidden).0, "ROLE_DENIED");
}
