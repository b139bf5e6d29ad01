//! Keys over the wire: who may, what is answered, and that nothing of a key is.

use callvault::{client::Client, domain::principal::Role, proto::v1::*};

use crate::harness::*;

fn rotate(tenant: &str, request: &str) -> RotateTenantKeyRequest {
    RotateTenantKeyRequest {
        tenant_id: tenant.to_owned(),
        request_id: request.to_owned(),
    }
}

async fn ended(keys: &Client, begun: KeyOperation) -> KeyOperation {
    keys.key_operation_ended(begun, |_| ()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_admin_rotates_looks_and_destroys() {
    let world = World::start().await;
    let keys = world.client(Role::KeyAdmin).await;
    let record = world.put(descriptor(), "content").await;
    let begun = keys.rotate_tenant_key(rotate(TENANT, "r-1")).await.unwrap();
    assert_eq!(begun.tenant_id, TENANT);
    let done = ended(&keys, begun.clone()).await;
    assert_eq!((done.state(), done.result), (KeyOperationState::Succeeded, 2));
    assert_eq!(done.pages_done, done.pages_total);
    let again = keys.rotate_tenant_key(rotate(TENANT, "r-1")).await.unwrap();
    assert_eq!(again.operation_id, begun.operation_id);

    let versions = keys.list_key_versions(TENANT).await.unwrap();
    let states: Vec<_> = versions.iter().map(|v| (v.version, v.state())).collect();
    assert_eq!(states, [(1, KeyState::Retired), (2, KeyState::Enabled)]);
    assert!(versions[1].page_count > 0 && versions[1].seal_count > 0 && versions[0].page_count == 0);
    let destroyed = keys.destroy_key_version(TENANT, 1).await.unwrap();
    assert_eq!(destroyed.state(), KeyState::Destroyed);
    assert_eq!(
        why(keys.destroy_key_version(TENANT, 2).await),
        is("KEY_IN_USE", "version")
    );
    assert_eq!(
        why(keys.destroy_key_version(TENANT, 0).await),
        is("INVALID_FIELD", "version")
    );

    let turned = keys
        .rotate_root_epoch(RotateRootEpochRequest::default())
        .await
        .unwrap();
    assert_eq!(turned.tenant_id, "");
    assert_eq!(ended(&keys, turned).await.result, 2);
    let epochs = keys.list_root_epochs().await.unwrap();
    assert_eq!(epochs.len(), 2);
    assert_eq!(
        (epochs[1].state(), epochs[1].provider.as_str()),
        (KeyState::Enabled, "file")
    );
    let signing = keys.list_signing_keys().await.unwrap();
    let uses: Vec<_> = signing.iter().map(|key| key.r#use()).collect();
    assert_eq!(uses, [SigningKeyUse::Certificate, SigningKeyUse::LogCheckpoint]);
    assert!(signing.iter().all(|key| key.public_key.len() == 32));
    assert_ne!(signing[0].public_key, signing[1].public_key);
    assert_eq!(
        signing[0].kid.strip_prefix("cert-").map(str::len),
        Some(signing[1].kid.len())
    );
    let reader = world.client(Role::Reader).await;
    let mut download = reader
        .read_recording(TENANT, &record.record_id, 0, 0)
        .await
        .unwrap();
    assert_eq!(download.next().await.unwrap().unwrap(), "content");
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_are_listed_newest_first_page_by_page() {
    let world = World::start().await;
    let keys = world.client(Role::KeyAdmin).await;
    let mut made = Vec::new();
    for tenant in [TENANT, OTHER, TENANT] {
        let begun = keys.rotate_tenant_key(rotate(tenant, "")).await.unwrap();
        made.push(ended(&keys, begun).await.operation_id);
    }
    made.reverse();
    let mut request = ListKeyOperationsRequest {
        page_size: 2,
        ..Default::default()
    };
    let mut listed = Vec::new();
    loop {
        let page = keys.list_key_operations(request.clone()).await.unwrap();
        assert!(page.operations.len() <= 2);
        listed.extend(
            page.operations
                .into_iter()
                .map(|operation| operation.operation_id),
        );
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, made);
    request.page_token = "nonsense".to_owned();
    assert_eq!(why(keys.list_key_operations(request).await).1, "page_token");
    let unknown = keys
        .get_key_operation("01890a5d-ac96-774b-bcce-b302099a8057")
        .await;
    assert_eq!(why(unknown).0, "NOT_FOUND");
    assert_eq!(why(keys.get_key_operation("x").await).1, "operation_id");
    assert_eq!(
        why(keys.rotate_tenant_key(rotate("nobody", "")).await).0,
        "NOT_FOUND"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_or_uploads_touches_no_key_and_a_key_admin_no_content() {
    let world = World::start().await;
    let record = world.put(descriptor(), "content").await;
    for role in [
        Role::Uploader,
        Role::Reader,
        Role::TenantAdmin,
        Role::Compliance,
        Role::Support,
    ] {
        let caller = world.client(role).await;
        assert_eq!(
            why(caller.rotate_tenant_key(rotate(TENANT, "")).await).0,
            "ROLE_DENIED",
            "{role}"
        );
        assert_eq!(
            why(caller.list_key_versions(TENANT).await).0,
            "ROLE_DENIED",
            "{role}"
        );
        let turn = caller.rotate_root_epoch(RotateRootEpochRequest::default()).await;
        assert_eq!(why(turn).0, "ROLE_DENIED", "{role}");
    }
    let auditor = world.client(Role::Auditor).await;
    assert_eq!(auditor.list_key_versions(TENANT).await.unwrap().len(), 1);
    assert_eq!(why(auditor.destroy_key_version(TENANT, 1).await).0, "ROLE_DENIED");
    let keys = world.client(Role::KeyAdmin).await;
    assert_eq!(
        why(keys.read_recording(TENANT, &record.record_id, 0, 0).await).0,
        "ROLE_DENIED"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_of_other_tenants_do_not_exist() {
    let world = World::start_with(Plan {
        identities: scoped(Role::KeyAdmin, &[TENANT]),
        ..Plan::default()
    })
    .await;
    let keys = world.client(Role::KeyAdmin).await;
    let own = keys.rotate_tenant_key(rotate(TENANT, "")).await.unwrap();
    ended(&keys, own.clone()).await;
    let other = OTHER.parse().unwrap();
    let foreign = world
        .vault
        .rotate_tenant_key("somebody", &other, None)
        .await
        .unwrap();
    let root = world.vault.rotate_root_epoch("somebody", None).await.unwrap();
    let unknown = keys
        .get_key_operation("01890a5d-ac96-774b-bcce-b302099a8057")
        .await;
    let unknown = unknown.unwrap_err().to_string();
    for id in [foreign.id.to_string(), root.id.to_string()] {
        assert_eq!(
            keys.get_key_operation(&id).await.unwrap_err().to_string(),
            unknown
        );
    }
    let request = ListKeyOperationsRequest {
        page_size: 1,
        ..Default::default()
    };
    let page = keys.list_key_operations(request).await.unwrap();
    let listed: Vec<_> = page.operations.iter().map(|o| o.operation_id.clone()).collect();
    assert_eq!(
        (listed, page.next_page_token.as_str()),
        (vec![own.operation_id], "")
    );
    assert_eq!(
        why(keys.rotate_tenant_key(rotate(OTHER, "")).await).0,
        "NOT_FOUND"
    );
    let turn = keys.rotate_root_epoch(RotateRootEpochRequest::default()).await;
    assert_eq!(why(turn).0, "SCOPE");
    assert_eq!(why(keys.list_root_epochs().await).0, "SCOPE");
}
