//! Sweeps over the wire: run_sweep, get_sweep. And the end of a whole tenant.

use callvault::{
    client::Client,
    domain::principal::Role,
    proto::v1::{erasure_target::Target, get_record_request::Name, *},
};
use tonic::Code;

use crate::{
    erasure::{NOBODY, asked, expect_gone, seconds, these},
    harness::*,
};

fn by(request: &str) -> RunSweepRequest {
    RunSweepRequest {
        request_id: request.to_owned(),
    }
}

async fn swept(client: &Client) -> Sweep {
    let begun = client.run_sweep(by("")).await.unwrap();
    let done = client.sweep_ended(begun, |_| ()).await.unwrap();
    assert_eq!(done.state(), SweepState::Succeeded, "{done:?}");
    done
}

async fn erasure(client: &Client, tenant: &str, id: &str) -> Erasure {
    let found = client.get_erasure(tenant, id).await.unwrap();
    found.erasure.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_makes_what_was_shredded_final_and_leaves_the_rest() {
    let world = World::start().await;
    let [gone, kept] = [
        world.put(descriptor(), "gone").await,
        world.put(descriptor(), "kept").await,
    ];
    let compliance = world.client(Role::Compliance).await;
    let effective = compliance.request_erasure(asked(these(&[&gone]))).await.unwrap();
    assert_eq!(effective.state(), ErasureState::Effective);
    assert!(effective.content_final_time.is_none());
    let mut waiting = asked(these(&[&kept]));
    waiting.grace = Some(seconds(600));
    let waiting = compliance.request_erasure(waiting).await.unwrap();

    let done = swept(&compliance).await;
    assert_eq!(done.epoch, 2);
    assert_eq!(done.pages_done, done.pages_total);
    assert_eq!(done.actor, "compliance");
    assert!(done.end_time.is_some() && done.reason.is_empty() && done.scheduled_epochs.is_empty());
    let swept_one = erasure(&compliance, TENANT, &effective.erasure_id).await;
    assert!(swept_one.content_final_time.is_some(), "{swept_one:?}");
    let untouched = erasure(&compliance, TENANT, &waiting.erasure_id).await;
    assert_eq!(untouched.state(), ErasureState::PendingShred);
    assert!(untouched.content_final_time.is_none());
    expect_gone(&world, &gone).await;

    // What was only cut off is whole, under the new keys.
    compliance
        .cancel_erasure(TENANT, &waiting.erasure_id)
        .await
        .unwrap();
    let reader = world.client(Role::Reader).await;
    let mut download = reader
        .read_recording(TENANT, &kept.record_id, 0, 0)
        .await
        .unwrap();
    assert_eq!(download.next().await.unwrap().unwrap(), "kept");
    let keys = world.client(Role::KeyAdmin).await;
    let epochs = keys.list_root_epochs().await.unwrap();
    let states: Vec<_> = epochs.iter().map(|epoch| (epoch.epoch, epoch.state())).collect();
    assert_eq!(states, [(1, KeyState::Destroyed), (2, KeyState::Enabled)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_was_asked_for_is_one_and_an_unknown_one_is_not_found() {
    let world = World::start().await;
    let (compliance, keys) = (
        world.client(Role::Compliance).await,
        world.client(Role::KeyAdmin).await,
    );
    let begun = keys.run_sweep(by("s-1")).await.unwrap();
    let done = compliance.sweep_ended(begun.clone(), |_| ()).await.unwrap();
    assert_eq!(
        (done.state(), done.actor.as_str()),
        (SweepState::Succeeded, "key-admin")
    );
    let again = keys.run_sweep(by("s-1")).await.unwrap();
    assert_eq!(again.sweep_id, begun.sweep_id);
    let next = keys.run_sweep(by("s-2")).await.unwrap();
    assert_ne!(next.sweep_id, begun.sweep_id);
    keys.sweep_ended(next, |_| ()).await.unwrap();

    assert_eq!(why(keys.get_sweep(NOBODY).await).0, "NOT_FOUND");
    assert_eq!(why(keys.get_sweep("x").await), is("INVALID_FIELD", "sweep_id"));
    assert_eq!(
        why(keys.run_sweep(by("a\u{0}")).await),
        is("INVALID_FIELD", "request_id")
    );
    // A rotation is no sweep, and a request for one is none for the other.
    let request = RotateRootEpochRequest {
        request_id: "s-3".to_owned(),
    };
    let turned = keys.rotate_root_epoch(request).await.unwrap();
    assert_eq!(why(keys.get_sweep(&turned.operation_id).await).0, "NOT_FOUND");
    assert_eq!(why(keys.run_sweep(by("s-3")).await).0, "REQUEST_ID_REUSED");
    let listed = keys
        .list_key_operations(ListKeyOperationsRequest::default())
        .await
        .unwrap();
    let sweeps = listed
        .operations
        .iter()
        .filter(|o| o.kind() == KeyOperationKind::Sweep);
    assert_eq!(sweeps.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_during_a_sweep_joins_it_or_follows_and_covers_what_was_shredded_before() {
    let world = World::start().await;
    let compliance = world.client(Role::Compliance).await;
    let mut made = Vec::new();
    let mut sweeps = Vec::new();
    for round in 0..6 {
        let record = world.put(descriptor(), format!("content {round}")).await;
        let erased = compliance
            .request_erasure(asked(these(&[&record])))
            .await
            .unwrap();
        let begun = compliance.run_sweep(by("")).await.unwrap();
        made.push((erased.erasure_id, begun.sweep_id.clone()));
        sweeps.push(begun);
    }
    for sweep in sweeps {
        let done = compliance.sweep_ended(sweep, |_| ()).await.unwrap();
        assert_eq!(done.state(), SweepState::Succeeded);
    }
    for (erased, sweep) in &made {
        let erased = erasure(&compliance, TENANT, erased).await;
        assert!(
            erased.content_final_time.is_some(),
            "the sweep {sweep} did not cover {erased:?}"
        );
    }
    let at_once = [
        compliance.run_sweep(by("")),
        compliance.run_sweep(by("")),
        compliance.run_sweep(by("")),
    ];
    for begun in futures_util::future::join_all(at_once).await {
        compliance.sweep_ended(begun.unwrap(), |_| ()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_acts_for_some_tenants_only_sweeps_nothing() {
    for role in [Role::Compliance, Role::KeyAdmin] {
        let world = World::start_with(Plan {
            identities: scoped(role, &[TENANT]),
            ..Plan::default()
        })
        .await;
        let client = world.client(role).await;
        assert_eq!(why(client.run_sweep(by("")).await).0, "SCOPE");
        assert_eq!(why(client.get_sweep(NOBODY).await).0, "SCOPE");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_tenant_goes_at_once_and_its_id_is_never_used_again() {
    let world = World::start().await;
    let record = world.put(descriptor(), content(MIB)).await;
    let compliance = world.client(Role::Compliance).await;
    let mut foreign = asked(Target::WholeTenant(true));
    foreign.request_id = "e-1".to_owned();
    let erased = compliance.request_erasure(foreign.clone()).await.unwrap();
    assert_eq!(erased.state(), ErasureState::Effective, "{erased:?}");
    assert!(erased.whole_tenant && erased.set_sha256.is_empty());
    assert_eq!((erased.record_count, erased.shredded_count), (0, 0));
    let again = compliance.request_erasure(foreign.clone()).await.unwrap();
    assert_eq!(again.erasure_id, erased.erasure_id);
    foreign.reference = "CASE-2".to_owned();
    assert_eq!(
        why(compliance.request_erasure(foreign).await).0,
        "REQUEST_ID_REUSED"
    );

    let (reader, uploader) = (
        world.client(Role::Reader).await,
        world.client(Role::Uploader).await,
    );
    let id = record.record_id.clone();
    let mut refused = vec![
        reader.get_record(TENANT, Name::RecordId(id.clone())).await.err(),
        reader.read_recording(TENANT, &id, 0, 0).await.err(),
        reader.get_message(TENANT, &id).await.err(),
        compliance
            .request_erasure(asked(Target::ConversationId("c".to_owned())))
            .await
            .err(),
        compliance
            .request_erasure(asked(Target::WholeTenant(true)))
            .await
            .err(),
    ];
    let list = ListRecordsRequest {
        tenant_id: TENANT.to_owned(),
        ..Default::default()
    };
    refused.push(reader.list_records(list).await.err());
    let put = uploader.put_recording(spec(descriptor()), callvault::client::Content::bytes("x"), None);
    refused.push(put.await.err());
    for (call, error) in refused.into_iter().enumerate() {
        assert_eq!(error.unwrap().code(), Some(Code::NotFound), "{call}");
    }

    let admin = world.client(Role::TenantAdmin).await;
    let create = CreateTenantRequest {
        tenant: Some(Tenant {
            tenant_id: TENANT.to_owned(),
            ..Default::default()
        }),
        request_id: "again".to_owned(),
    };
    assert_eq!(why(admin.create_tenant(create).await).0, "TENANT_EXISTS");
    let listed = admin.list_tenants(ListTenantsRequest::default()).await.unwrap();
    let states: Vec<_> = listed
        .tenants
        .iter()
        .map(|t| (t.tenant_id.as_str(), t.state()))
        .collect();
    assert_eq!(
        states,
        [(TENANT, TenantState::Shredded), (OTHER, TenantState::Active)]
    );
    assert_eq!(
        admin.get_tenant(TENANT).await.unwrap().state(),
        TenantState::Shredded
    );

    swept(&compliance).await;
    let last = erasure(&compliance, TENANT, &erased.erasure_id).await;
    assert_eq!(last.state(), ErasureState::Final, "{last:?}");
    assert!(last.content_final_time.is_some() && last.search_traces_final_time.is_some());
    let list = ListErasuresRequest {
        tenant_id: TENANT.to_owned(),
        ..Default::default()
    };
    assert_eq!(compliance.list_erasures(list).await.unwrap().erasures.len(), 1);
    world.expect_nothing_left().await;
    let found = compliance.get_erasure(TENANT, &erased.erasure_id).await.unwrap();
    assert!(found.pending_deletions.is_empty(), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_within_its_grace_is_cut_off_and_comes_back_whole() {
    let world = World::start().await;
    let record = world.put(descriptor(), content(MIB)).await;
    let compliance = world.client(Role::Compliance).await;
    let mut request = asked(Target::WholeTenant(true));
    request.grace = Some(seconds(600));
    let pending = compliance.request_erasure(request).await.unwrap();
    assert_eq!(pending.state(), ErasureState::PendingShred);
    let reader = world.client(Role::Reader).await;
    let name = || Name::RecordId(record.record_id.clone());
    let refused = reader.get_record(TENANT, name()).await;
    assert_eq!(refused.unwrap_err().code(), Some(Code::NotFound));
    let admin = world.client(Role::TenantAdmin).await;
    assert_eq!(
        admin.get_tenant(TENANT).await.unwrap().state(),
        TenantState::PendingShred
    );
    // The next sweep takes nothing of it.
    swept(&compliance).await;
    compliance
        .cancel_erasure(TENANT, &pending.erasure_id)
        .await
        .unwrap();
    assert_eq!(reader.get_record(TENANT, name()).await.unwrap(), record);
    let mut download = reader
        .read_recording(TENANT, &record.record_id, 0, 0)
        .await
        .unwrap();
    assert_eq!(download.copy_to(&mut tokio::io::sink()).await.unwrap(), 1 << 20);
    assert_eq!(
        admin.get_tenant(TENANT).await.unwrap().state(),
        TenantState::Active
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_tenant_waits_for_what_the_law_wants_kept() {
    let world = World::start().await;
    let kept = RetentionClass {
        retention_class_id: "kept".to_owned(),
        minimum_days: 10,
        action: RetentionAction::Shred.into(),
        ..Default::default()
    };
    let request = CreateRetentionClassRequest {
        tenant_id: TENANT.to_owned(),
        retention_class: Some(kept),
        request_id: String::new(),
    };
    let admin = world.client(Role::TenantAdmin).await;
    admin.create_retention_class(request).await.unwrap();
    let mut about = descriptor();
    about.retention_class = "kept".to_owned();
    world.put(about, "content").await;
    let compliance = world.client(Role::Compliance).await;
    let erased = compliance
        .request_erasure(asked(Target::WholeTenant(true)))
        .await
        .unwrap();
    assert_eq!(erased.state(), ErasureState::PendingShred, "{erased:?}");
    assert_eq!(erased.obstacle, "MINIMUM_RETENTION");
}
