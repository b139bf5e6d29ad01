//! Tenants that are suspended: suspend_tenant, resume_tenant.

use callvault::{
    client::{Client, ClientError},
    domain::principal::Role,
    proto::v1::{get_record_request::Name, *},
};
use tonic::Code;

use crate::{
    erasure::{asked, these},
    harness::*,
};

fn suspend(request_id: &str) -> SuspendTenantRequest {
    SuspendTenantRequest {
        tenant_id: TENANT.to_owned(),
        request_id: request_id.to_owned(),
    }
}

fn resume(request_id: &str) -> ResumeTenantRequest {
    ResumeTenantRequest {
        tenant_id: TENANT.to_owned(),
        request_id: request_id.to_owned(),
    }
}

async fn put_message(uploader: &Client, tenant: &str) -> Result<Record, ClientError> {
    let request = PutMessageRequest {
        tenant_id: tenant.to_owned(),
        descriptor: Some(descriptor()),
        body: "a message".into(),
        ..Default::default()
    };
    uploader.put_message(request).await
}

fn expect_suspended<T: std::fmt::Debug>(answer: Result<T, ClientError>) {
    let error = answer.unwrap_err();
    assert_eq!(
        (error.code(), error.reason()),
        (Some(Code::FailedPrecondition), Some("TENANT_SUSPENDED"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_suspended_tenant_is_served_or_stored_until_it_is_resumed() {
    let world = World::start().await;
    let record = world.put(descriptor(), content(40 * MIB)).await;
    let (admin, reader) = (
        world.client(Role::TenantAdmin).await,
        world.client(Role::Reader).await,
    );
    let uploader = world.client(Role::Uploader).await;
    let mut running = reader
        .read_recording(TENANT, &record.record_id, 0, 0)
        .await
        .unwrap();
    assert!(running.next().await.unwrap().is_some());
    let tenant = admin.suspend_tenant(suspend("")).await.unwrap();
    assert_eq!(tenant.state(), TenantState::Suspended);
    // Who reads is cut, who comes is refused.
    running.copy_to(&mut tokio::io::sink()).await.unwrap_err();
    let id = || Name::RecordId(record.record_id.clone());
    expect_suspended(reader.get_record(TENANT, id()).await);
    let list = ListRecordsRequest {
        tenant_id: TENANT.to_owned(),
        ..Default::default()
    };
    expect_suspended(reader.list_records(list).await);
    expect_suspended(put_message(&uploader, TENANT).await);
    put_message(&uploader, OTHER).await.unwrap();
    assert_eq!(
        admin.get_tenant(TENANT).await.unwrap().state(),
        TenantState::Suspended
    );
    let tenant = admin.resume_tenant(resume("")).await.unwrap();
    assert_eq!(tenant.state(), TenantState::Active);
    reader.get_record(TENANT, id()).await.unwrap();
    put_message(&uploader, TENANT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_erased_of_a_suspended_tenant_is_gone_when_it_is_resumed() {
    let world = World::start().await;
    let (kept, gone) = (
        world.put(descriptor(), "kept").await,
        world.put(descriptor(), "gone").await,
    );
    let admin = world.client(Role::TenantAdmin).await;
    admin.suspend_tenant(suspend("")).await.unwrap();
    let compliance = world.client(Role::Compliance).await;
    compliance.request_erasure(asked(these(&[&gone]))).await.unwrap();
    admin.resume_tenant(resume("")).await.unwrap();
    let reader = world.client(Role::Reader).await;
    let found = |record: &Record| reader.get_record(TENANT, Name::RecordId(record.record_id.clone()));
    assert_eq!(found(&gone).await.unwrap_err().code(), Some(Code::NotFound));
    found(&kept).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_suspension_does_not_suspend_what_was_resumed_since() {
    let world = World::start().await;
    let admin = world.client(Role::TenantAdmin).await;
    admin.suspend_tenant(suspend("s-1")).await.unwrap();
    admin.suspend_tenant(suspend("s-1")).await.unwrap();
    admin.resume_tenant(resume("r-1")).await.unwrap();
    let late = admin.suspend_tenant(suspend("s-1")).await.unwrap();
    assert_eq!(late.state(), TenantState::Active);
    let reused = admin.resume_tenant(resume("s-1")).await.unwrap_err();
    assert_eq!(reused.reason(), Some("REQUEST_ID_REUSED"));
    let nobody = SuspendTenantRequest {
        tenant_id: "nobody".to_owned(),
        ..Default::default()
    };
    assert_eq!(
        admin.suspend_tenant(nobody).await.unwrap_err().code(),
        Some(Code::NotFound)
    );
}
