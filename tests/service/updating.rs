//! Corrections.

use callvault::{domain::principal::Role, proto::v1::*};
use prost_types::FieldMask;

use crate::harness::*;

fn correct(record: &Record, descriptor: Descriptor, paths: &[&str]) -> UpdateRecordRequest {
    UpdateRecordRequest {
        tenant_id: TENANT.to_owned(),
        record_id: record.record_id.clone(),
        descriptor: Some(descriptor),
        update_mask: Some(FieldMask {
            paths: paths.iter().map(|p| (*p).to_owned()).collect(),
        }),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_mask_names_changes_and_only_what_was_seen() {
    let world = World::start().await;
    let mut before = descriptor();
    before.source = "pbx".to_owned();
    let record = world.put(before, "content").await;
    let supervisor = world.client(Role::Supervisor).await;
    let said = Descriptor {
        conversation_id: "ignored".to_owned(),
        labels: [("team".to_owned(), "blue".to_owned())].into(),
        ..Default::default()
    };
    let mut request = correct(&record, said, &["labels", "source"]);
    request.etag.clone_from(&record.etag);
    let corrected = supervisor.update_record(request.clone()).await.unwrap();
    let after = corrected.descriptor.clone().unwrap();
    assert_eq!(after.conversation_id, "conversation-1");
    assert_eq!(
        (after.labels["team"].as_str(), after.source.as_str()),
        ("blue", "")
    );
    assert_ne!(corrected.etag, record.etag);

    let late = supervisor.update_record(request.clone()).await;
    assert_eq!(late.unwrap_err().code(), Some(tonic::Code::Aborted));
    let shown = get_record_request::Name::RecordId(record.record_id.clone());
    assert_eq!(supervisor.get_record(TENANT, shown).await.unwrap(), corrected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_correction_is_made_once() {
    let world = World::start().await;
    let record = world.put(descriptor(), "content").await;
    let supervisor = world.client(Role::Supervisor).await;
    let mut request = correct(&record, descriptor(), &["source"]);
    request.request_id = "r1".to_owned();
    let once = supervisor.update_record(request.clone()).await.unwrap();
    assert_eq!(supervisor.update_record(request.clone()).await.unwrap(), once);
    request.update_mask.as_mut().unwrap().paths = vec!["direction".to_owned()];
    assert_eq!(
        why(supervisor.update_record(request).await).0,
        "REQUEST_ID_REUSED"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_moves_a_record_in_every_listing() {
    let world = World::start().await;
    let record = world.put(descriptor(), "content").await;
    let supervisor = world.client(Role::Supervisor).await;
    let said = Descriptor {
        conversation_id: "conversation-2".to_owned(),
        start_time: Some(at(1_800_000_000)),
        age_flag: AgeFlag::Child.into(),
        ..Default::default()
    };
    let request = correct(&record, said, &["conversation_id", "start_time", "age_flag"]);
    let corrected = supervisor.update_record(request).await.unwrap();
    assert_eq!(corrected.state(), RecordState::Restricted);
    for (conversation, expected) in [("conversation-1", 0), ("conversation-2", 1), ("", 1)] {
        let query = RecordQuery {
            conversation_id: conversation.to_owned(),
            ..Default::default()
        };
        let request = ListRecordsRequest {
            query: Some(query),
            ..crate::listing::everything()
        };
        assert_eq!(
            supervisor.list_records(request).await.unwrap().records.len(),
            expected,
            "{conversation}"
        );
    }
    let read = supervisor.read_recording(TENANT, &record.record_id, 0, 0).await;
    assert_eq!(why(read).0, "RESTRICTED");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_corrected_is_refused_by_its_path() {
    let world = World::start().await;
    let record = world.put(descriptor(), "content").await;
    let supervisor = world.client(Role::Supervisor).await;
    for (paths, field) in [
        (&[][..], "update_mask"),
        (&["source", "external_id"], "update_mask.paths[1]"),
        (&["derived_from"], "update_mask.paths[0]"),
        (&["retention_class"], "update_mask.paths[0]"),
        (&["parties.tel"], "update_mask.paths[0]"),
        (&["*"], "update_mask.paths[0]"),
        (&["\u{0}'; drop table"], "update_mask.paths[0]"),
        (&["conversation_id"], "descriptor.conversation_id"),
        (&["channel"], "descriptor.channel"),
        (&["start_time"], "descriptor.start_time"),
        (&["media_type"], "descriptor.media_type"),
        (&["allowed_purposes"], "descriptor.allowed_purposes"),
    ] {
        let answer = supervisor
            .update_record(correct(&record, Descriptor::default(), paths))
            .await;
        if field.starts_with("update_mask.") {
            let message = answer.as_ref().unwrap_err().to_string();
            assert!(!message.contains("drop") && (message.contains("path=") || paths[0].contains("drop")));
        }
        assert_eq!(why(answer), is("INVALID_FIELD", field), "{paths:?}");
    }
    let mut none = correct(&record, Descriptor::default(), &["source"]);
    none.descriptor = None;
    assert_eq!(
        why(supervisor.update_record(none).await),
        is("INVALID_FIELD", "descriptor")
    );
}
