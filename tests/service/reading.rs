//! What goes in comes back.

use callvault::{
    client::{Content, Download},
    domain::principal::Role,
    proto::v1::get_record_request::Name,
};

use crate::harness::*;

async fn all(mut download: Download) -> Vec<u8> {
    let mut bytes = Vec::new();
    download.copy_to(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_recording_comes_back_from_a_directory_and_sled() {
    let plan = Plan {
        sled: true,
        ..Plan::default()
    };
    let world = World::start_with(plan).await;
    let record = world.put(descriptor(), "RIFF\0\0\0\0WAVEfmt ").await;
    assert_eq!(record.size_bytes, 16);
    let reader = world.client(Role::Reader).await;
    let download = reader
        .read_recording(TENANT, &record.record_id, 0, 0)
        .await
        .unwrap();
    let header = download.header().clone();
    assert_eq!(header.record.as_ref(), Some(&record));
    assert_eq!((header.offset, header.length), (0, 16));
    assert_eq!(record.descriptor.unwrap().media_type, "audio/wav");
    assert_eq!(all(download).await, b"RIFF\0\0\0\0WAVEfmt ");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_range_of_three_extents_is_what_was_sent() {
    let world = World::start().await;
    let sent = content(20 * MIB);
    let record = world.put(descriptor(), sent.clone()).await;
    let reader = world.client(Role::Reader).await;
    let extent = 128 * 65_520 - 40;
    let end = sent.len();
    for (offset, limit) in [
        (0, 0),
        (0, 1),
        (end - 1, 0),
        (end - 1, 9),
        (extent - 70_000, 140_000),
        (2 * extent - 1, 2),
        (65_519, 2),
        (5, end),
    ] {
        let download = reader.read_recording(TENANT, &record.record_id, offset as u64, limit as u64);
        let got = all(download.await.unwrap()).await;
        let until = if limit == 0 { end } else { end.min(offset + limit) };
        assert!(got == sent[offset..until], "{offset} {limit}");
    }
    for beyond in [end as u64, u64::MAX] {
        let answer = reader.read_recording(TENANT, &record.record_id, beyond, 0).await;
        assert_eq!(why(answer), is("OFFSET_OUT_OF_RANGE", "offset"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_found_by_either_name() {
    let world = World::start().await;
    let mut descriptor = descriptor();
    descriptor.external_id = "call 1 of jane".to_owned();
    let record = world.put(descriptor, "content").await;
    let reader = world.client(Role::Reader).await;
    for name in [
        Name::RecordId(record.record_id.clone()),
        Name::ExternalId("call 1 of jane".to_owned()),
    ] {
        assert_eq!(reader.get_record(TENANT, name).await.unwrap(), record);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_childs_record_is_seen_and_not_read() {
    let world = World::start().await;
    let mut descriptor = descriptor();
    descriptor.age_flag = callvault::proto::v1::AgeFlag::Child.into();
    let record = world.put(descriptor, "content").await;
    assert_eq!(record.state(), callvault::proto::v1::RecordState::Restricted);
    let reader = world.client(Role::Reader).await;
    let name = Name::RecordId(record.record_id.clone());
    assert!(reader.get_record(TENANT, name).await.is_ok());
    let answer = reader.read_recording(TENANT, &record.record_id, 0, 0).await;
    assert_eq!(
        answer.as_ref().unwrap_err().code(),
        Some(tonic::Code::FailedPrecondition)
    );
    assert_eq!(why(answer), is("RESTRICTED", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn purposes_are_declared_known_and_allowed() {
    let world = World::start().await;
    let record = world.put(descriptor(), "content").await;
    let mut config = world.config(Role::Reader);
    config.purpose = None;
    let undeclared = callvault::client::Client::connect(&config).await.unwrap();
    let id = record.record_id.as_str();
    let get = |client: callvault::client::Client| async move {
        let get = client.get_record(TENANT, Name::RecordId(id.to_owned())).await;
        let read = client.read_recording(TENANT, id, 0, 0).await;
        let list = client.list_records(crate::listing::everything()).await;
        [
            why(get),
            why(read),
            why(list.map(|page| assert!(!page.records.is_empty()))),
        ]
    };
    let required = is("PURPOSE_REQUIRED", "callvault-purpose");
    assert_eq!(
        get(undeclared.clone()).await,
        [required.clone(), required.clone(), required]
    );
    let unknown = is("INVALID_FIELD", "callvault-purpose");
    let fun = undeclared.for_purpose("Fun").unwrap();
    assert_eq!(get(fun).await, [unknown.clone(), unknown.clone(), unknown]);

    let marketing = undeclared.for_purpose("DirectMarketing").unwrap();
    let denied = is("PURPOSE_DENIED", "");
    let read = marketing.read_recording(TENANT, id, 0, 0).await;
    assert_eq!(why(read), denied);
    let name = Name::RecordId(id.to_owned());
    assert_eq!(why(marketing.get_record(TENANT, name).await), denied);
    let page = marketing
        .list_records(crate::listing::everything())
        .await
        .unwrap();
    assert!(page.records.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_ends_the_stream_with_data_loss() {
    let world = World::start().await;
    let sent = content(3 * MIB);
    let record = world.put(descriptor(), sent.clone()).await;
    world.flip_byte_of_the_only_blob(2 * MIB);
    let reader = world.client(Role::Reader).await;
    let mut download = reader
        .read_recording(TENANT, &record.record_id, 0, 0)
        .await
        .unwrap();
    let mut got = Vec::new();
    let error = download.copy_to(&mut got).await.unwrap_err();
    assert_eq!(error.code(), Some(tonic::Code::DataLoss));
    assert_eq!(error.reason(), Some("INTEGRITY"));
    assert!(got.len() < 2 * MIB && sent.starts_with(&got));
}

#[tokio::test(flavor = "multi_thread")]
async fn content_may_come_from_a_file_a_reader_or_a_stream() {
    let world = World::start().await;
    let (uploader, reader) = (
        world.client(Role::Uploader).await,
        world.client(Role::Reader).await,
    );
    let sent = content(MIB + 7);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("call");
    std::fs::write(&path, &sent).unwrap();
    let parts = sent.chunks(100_000).map(|c| Ok(bytes::Bytes::copy_from_slice(c)));
    let parts: Vec<_> = parts.collect();
    for source in [
        Content::file(&path),
        Content::reader(std::io::Cursor::new(sent.clone())),
        Content::stream(futures_util::stream::iter(parts)),
    ] {
        let record = uploader
            .put_recording(spec(descriptor()), source, None)
            .await
            .unwrap();
        let download = reader
            .read_recording(TENANT, &record.record_id, 0, 0)
            .await
            .unwrap();
        assert!(all(download).await == sent);
    }
}
