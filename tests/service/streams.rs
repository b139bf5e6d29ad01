//! Callers that stop, dawdle or vanish; a server that is told to stop.

use std::time::Duration;

use bytes::Bytes;
use callvault::{client::Upload, domain::principal::Role, grpc::StreamLimits};
use tonic::Code;

use crate::harness::*;

async fn begun(world: &World, megabytes: usize) -> Upload {
    let uploader = world.client(Role::Uploader).await;
    let mut upload = uploader.begin_upload(spec(descriptor())).await.unwrap();
    upload.write(vec![7; megabytes * MIB].into()).await.unwrap();
    upload
}

fn impatient() -> Plan {
    Plan {
        limits: StreamLimits {
            idle: Duration::from_millis(300),
            stall: Duration::from_millis(300),
            ..StreamLimits::default()
        },
        ..Plan::default()
    }
}

async fn until_an_upload_is_in_the_store(world: &World) {
    while world.leftovers().await.1 == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_in_the_middle_leaves_nothing() {
    let world = World::start().await;
    let upload = begun(&world, 20).await;
    until_an_upload_is_in_the_store(&world).await;
    drop(upload);
    world.expect_nothing_left().await;
    assert_eq!(world.vault.budget().available(), 256 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_says_nothing_is_given_up() {
    let world = World::start_with(impatient()).await;
    let mut upload = begun(&world, 10).await;
    until_an_upload_is_in_the_store(&world).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let answer = match upload.write(vec![7; 8 << 10].into()).await {
        Ok(()) => upload.finish(None).await.map(|_| ()),
        refused => refused,
    };
    assert_eq!(answer.as_ref().unwrap_err().code(), Some(Code::DeadlineExceeded));
    assert_eq!(why(answer), is("UPLOAD_IDLE", ""));
    world.expect_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_never_ends_is_given_up() {
    let mut plan = impatient();
    plan.limits.total = Duration::from_millis(300);
    let world = World::start_with(plan).await;
    let mut upload = begun(&world, 1).await;
    let answer = loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if let Err(error) = upload.write(Bytes::from(vec![7; 8 << 10])).await {
            break Err::<(), _>(error);
        }
    };
    assert_eq!(why(answer), is("UPLOAD_TOO_LONG", ""));
    world.expect_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_up_nobody() {
    let world = World::start().await;
    let record = world.put(descriptor(), content(40 * MIB)).await;
    let before = world.vault.budget().available();
    let reader = world.client(Role::Reader).await;
    let mut slow = reader
        .read_recording(TENANT, &record.record_id, 0, 0)
        .await
        .unwrap();
    assert!(slow.next().await.unwrap().is_some());
    // On the same connection.
    let mut quick = reader
        .read_recording(TENANT, &record.record_id, 0, 0)
        .await
        .unwrap();
    assert_eq!(quick.copy_to(&mut tokio::io::sink()).await.unwrap(), 40 << 20);
    let held = before - world.vault.budget().available();
    assert!(
        held <= 6 << 20,
        "{held} bytes are held for a reader that does not read"
    );
    drop(slow);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_loses_its_stream_and_knows() {
    let world = World::start_with(impatient()).await;
    let record = world.put(descriptor(), content(20 * MIB)).await;
    let reader = world.client(Role::Reader).await;
    let mut stalled = reader
        .read_recording(TENANT, &record.record_id, 0, 0)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let error = stalled.copy_to(&mut tokio::io::sink()).await.unwrap_err();
    assert_eq!(
        (error.code(), error.reason()),
        (Some(Code::DeadlineExceeded), Some("READ_STALLED"))
    );
    assert_eq!(world.vault.budget().available(), 256 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_runs_may_finish_while_the_server_drains() {
    let world = World::start().await;
    let mut upload = begun(&world, 9).await;
    until_an_upload_is_in_the_store(&world).await;
    world.drain.begin();
    tokio::time::sleep(Duration::from_millis(100)).await;
    upload.write(content(MIB).into()).await.unwrap();
    assert_eq!(upload.finish(None).await.unwrap().size_bytes, 10 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_outlives_the_drain_leaves_nothing() {
    let world = World::start().await;
    let mut upload = begun(&world, 10).await;
    until_an_upload_is_in_the_store(&world).await;
    world.drain.cut();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut written = Ok(());
    for _ in 0..100 {
        written = upload.write(content(64 << 10).into()).await;
        if written.is_err() {
            break;
        }
    }
    assert!(written.is_err());
    world.expect_nothing_left().await;
}
