//! Erasures over the wire: preview_erasure, request_erasure, cancel_erasure, get_erasure, list_erasures, get_certificate. Who
//! may, what goes, what stands in the way, and that nothing of it is served any more.

use std::time::Duration;

use callvault::{
    client::{Client, ClientError, Content},
    domain::principal::Role,
    proto::v1::{erasure_target::Target, get_record_request::Name, subject_identifier::Identifier, *},
};
use prost::Message as _;
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::*;

const REQUEST: &str = "/callvault.v1.ErasureService/RequestErasure";
/// No record, erasure or sweep has this id.
pub(crate) const NOBODY: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// A request without grace.
pub(crate) fn asked(target: Target) -> RequestErasureRequest {
    RequestErasureRequest {
        tenant_id: TENANT.to_owned(),
        target: what(target),
        ground: ErasureGround::A17.into(),
        reference: "CASE-1".to_owned(),
        grace: Some(seconds(0)),
        ..Default::default()
    }
}

pub(crate) fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

fn what(target: Target) -> Option<ErasureTarget> {
    Some(ErasureTarget { target: Some(target) })
}

pub(crate) fn these(records: &[&Record]) -> Target {
    named(records.iter().map(|record| record.record_id.clone()))
}

fn named(ids: impl IntoIterator<Item = impl Into<String>>) -> Target {
    Target::Records(RecordIds {
        record_ids: ids.into_iter().map(Into::into).collect(),
    })
}

fn certificate_of(erasure: &str) -> GetCertificateRequest {
    GetCertificateRequest {
        tenant_id: TENANT.to_owned(),
        erasure_id: erasure.to_owned(),
        stage: CertificateStage::Unspecified.into(),
    }
}

fn person(identifier: Identifier) -> SubjectIdentifier {
    SubjectIdentifier {
        identifier: Some(identifier),
    }
}

fn preview(target: Target) -> PreviewErasureRequest {
    PreviewErasureRequest {
        tenant_id: TENANT.to_owned(),
        target: what(target),
        ground: ErasureGround::A17.into(),
    }
}

fn call(conversation: &str, party: Party) -> Descriptor {
    Descriptor {
        conversation_id: conversation.to_owned(),
        parties: vec![Party {
            role: PartyRole::Customer.into(),
            ..party
        }],
        ..descriptor()
    }
}

fn jane() -> Party {
    Party {
        tel: "+525512345678".to_owned(),
        mailto: "Jane@example.com".to_owned(),
        external_subject_id: "crm-7".to_owned(),
        ..Default::default()
    }
}

async fn put_message(world: &World, descriptor: Descriptor, request: &str) -> Result<Record, ClientError> {
    let uploader = world.client(Role::Uploader).await;
    let request = PutMessageRequest {
        tenant_id: TENANT.to_owned(),
        descriptor: Some(descriptor),
        request_id: request.to_owned(),
        body: "a message".into(),
    };
    uploader.put_message(request).await
}

/// Nobody is served anything of a record, by whatever way.
pub(crate) async fn expect_gone(world: &World, record: &Record) {
    let about = record.descriptor.clone().unwrap();
    let (tenant, id) = (&record.tenant_id, &record.record_id);
    let reader = world.client(Role::Reader).await;
    let by_law = world
        .client(Role::Compliance)
        .await
        .for_purpose("LegalCompliance");
    let not_found = |what: &str, code| assert_eq!(code, Some(Code::NotFound), "{what} {id}");
    for client in [&reader, &by_law.unwrap()] {
        let by_id = client.get_record(tenant, Name::RecordId(id.clone())).await;
        not_found("get_record", by_id.unwrap_err().code());
        if !about.external_id.is_empty() {
            let name = Name::ExternalId(about.external_id.clone());
            let by_name = client.get_record(tenant, name).await;
            not_found("get_record by external id", by_name.unwrap_err().code());
        }
        let request = ListRecordsRequest {
            tenant_id: tenant.clone(),
            ..Default::default()
        };
        let listed = client.list_records(request).await.unwrap();
        assert!(
            listed.records.iter().all(|listed| listed.record_id != *id),
            "{id}"
        );
    }
    let read = reader.read_recording(tenant, id, 0, 0).await;
    not_found("read_recording", read.unwrap_err().code());
    let message = reader.get_message(tenant, id).await;
    not_found("get_message", message.unwrap_err().code());
}

async fn expect_served(world: &World, record: &Record) {
    let reader = world.client(Role::Reader).await;
    let name = Name::RecordId(record.record_id.clone());
    let found = reader.get_record(&record.tenant_id, name).await.unwrap();
    assert_eq!(found.descriptor, record.descriptor);
    let mut download = reader
        .read_recording(&record.tenant_id, &record.record_id, 0, 0)
        .await
        .unwrap();
    let read = download.copy_to(&mut tokio::io::sink()).await.unwrap();
    assert_eq!(i64::try_from(read).unwrap(), record.size_bytes);
}

async fn class_that_keeps(world: &World, id: &str, minimum_days: i32) {
    let request = CreateRetentionClassRequest {
        tenant_id: TENANT.to_owned(),
        retention_class: Some(RetentionClass {
            retention_class_id: id.to_owned(),
            minimum_days,
            action: RetentionAction::Shred.into(),
            ..Default::default()
        }),
        request_id: String::new(),
    };
    let admin = world.client(Role::TenantAdmin).await;
    admin.create_retention_class(request).await.unwrap();
}

// ---- who ----

#[tokio::test(flavor = "multi_thread")]
async fn compliance_erases_and_nobody_who_reads_uploads_or_holds_keys() {
    /// One column per call: preview request cancel get list certificate, sweep run get.
    const TABLE: &[(Role, &str)] = &[
        (Role::Uploader, "........"),
        (Role::Reader, "........"),
        (Role::Agent, "........"),
        (Role::Supervisor, "........"),
        (Role::TenantAdmin, "........"),
        (Role::KeyAdmin, "......xx"),
        (Role::Compliance, "xxxxxxxx"),
        (Role::Dpo, "x..xxx.x"),
        (Role::Auditor, "...xxx.x"),
        (Role::Support, "........"),
    ];
    assert_eq!(TABLE.len(), Role::ALL.len());
    let world = World::start().await;
    for (role, row) in TABLE {
        let client = world.client(*role).await;
        let list = ListErasuresRequest {
            tenant_id: TENANT.to_owned(),
            ..Default::default()
        };
        let certificate = client.get_certificate(certificate_of(NOBODY));
        let answers = [
            client.preview_erasure(preview(named([NOBODY]))).await.err(),
            client.request_erasure(asked(named([NOBODY]))).await.err(),
            client.cancel_erasure(TENANT, NOBODY).await.err(),
            client.get_erasure(TENANT, NOBODY).await.err(),
            client.list_erasures(list).await.err(),
            certificate.await.err(),
            client.run_sweep(RunSweepRequest::default()).await.err(),
            client.get_sweep(NOBODY).await.err(),
        ];
        for (call, (error, cell)) in answers.into_iter().zip(row.chars()).enumerate() {
            let reason = error.as_ref().and_then(ClientError::reason);
            assert_eq!(
                reason == Some("ROLE_DENIED"),
                cell == '.',
                "{role} {call} {error:?}"
            );
            assert!(
                matches!(reason, None | Some("ROLE_DENIED" | "NOT_FOUND")),
                "{role} {call}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_tenant_has_or_erased_does_not_exist() {
    let world = World::start().await;
    let uploader = world.client(Role::Uploader).await;
    let spec = PutRecordingSpec {
        tenant_id: OTHER.to_owned(),
        ..spec(descriptor())
    };
    let put = uploader.put_recording(spec, Content::bytes("content"), None);
    let (foreign, own) = (put.await.unwrap(), world.put(descriptor(), "content").await);
    let compliance = world.client(Role::Compliance).await;
    let answer = async |id: &str| {
        let targets = [own.record_id.as_str(), id];
        let mut said = Vec::new();
        let previewed = compliance.preview_erasure(preview(named(targets))).await;
        let requested = compliance.request_erasure(asked(named(targets))).await;
        for error in [previewed.unwrap_err(), requested.unwrap_err()] {
            assert_eq!(error.code(), Some(Code::NotFound));
            assert_eq!(error.field(), Some("target.records.record_ids[1]"));
            said.push(error.to_string());
        }
        said
    };
    assert_eq!(answer(&foreign.record_id).await, answer(NOBODY).await);
    expect_served(&world, &own).await;

    let mut request = asked(these(&[&foreign]));
    request.tenant_id = OTHER.to_owned();
    let erased = compliance.request_erasure(request).await.unwrap();
    let answer = async |id: &str| {
        let certificate = compliance.get_certificate(certificate_of(id));
        [
            compliance.get_erasure(TENANT, id).await.unwrap_err().to_string(),
            compliance
                .cancel_erasure(TENANT, id)
                .await
                .unwrap_err()
                .to_string(),
            certificate.await.unwrap_err().to_string(),
        ]
    };
    assert_eq!(answer(&erased.erasure_id).await, answer(NOBODY).await);
    for (tenant, many) in [(TENANT, 0), (OTHER, 1)] {
        let list = ListErasuresRequest {
            tenant_id: tenant.to_owned(),
            ..Default::default()
        };
        assert_eq!(compliance.list_erasures(list).await.unwrap().erasures.len(), many);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_out_of_scope_is_one_that_never_was() {
    let world = World::start_with(Plan {
        identities: scoped(Role::Compliance, &[TENANT]),
        ..Plan::default()
    })
    .await;
    let compliance = world.client(Role::Compliance).await;
    let answer = async |tenant: &str| {
        let mut request = asked(Target::WholeTenant(true));
        request.tenant_id = tenant.to_owned();
        let mut looked = preview(Target::WholeTenant(true));
        looked.tenant_id = tenant.to_owned();
        let list = ListErasuresRequest {
            tenant_id: tenant.to_owned(),
            ..Default::default()
        };
        [
            compliance.preview_erasure(looked).await.unwrap_err().to_string(),
            compliance.request_erasure(request).await.unwrap_err().to_string(),
            compliance
                .get_erasure(tenant, NOBODY)
                .await
                .unwrap_err()
                .to_string(),
            compliance.list_erasures(list).await.unwrap_err().to_string(),
        ]
    };
    assert_eq!(answer(OTHER).await, answer("nobody").await);
}

// ---- what ----

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_target_takes_what_it_names_with_its_artifacts_and_nothing_else() {
    let in_conversation = |conversation: &str| RecordQuery {
        conversation_id: conversation.to_owned(),
        ..Default::default()
    };
    let world = World::start().await;
    let compliance = world.client(Role::Compliance).await;
    type Choose = fn(&[Record; 3]) -> Target;
    // Which of recording, message, artifact of the recording go.
    let table: [(Choose, [bool; 3]); 8] = [
        (|made| these(&[&made[0]]), [true, false, true]),
        (|made| these(&[&made[1], &made[2]]), [false, true, true]),
        (|_| Target::ConversationId("c-1".to_owned()), [true, true, true]),
        (
            |_| Target::Subject(person(Identifier::Tel("+525512345678".to_owned()))),
            [true, false, true],
        ),
        (
            |_| Target::Subject(person(Identifier::Mailto("jane@example.com".to_owned()))),
            [true, false, true],
        ),
        (
            |_| Target::Subject(person(Identifier::ExternalSubjectId("crm-7".to_owned()))),
            [true, false, true],
        ),
        (
            |_| {
                Target::Query(RecordQuery {
                    kinds: vec![RecordKind::Message.into()],
                    ..RecordQuery::default()
                })
            },
            [false, true, false],
        ),
        (
            |_| {
                Target::Query(RecordQuery {
                    labels: [("team".to_owned(), "north".to_owned())].into(),
                    start_time_from: Some(at(1_700_000_000)),
                    start_time_until: Some(at(1_700_000_001)),
                    ..RecordQuery::default()
                })
            },
            [true, false, true],
        ),
    ];
    for (round, (choose, expected)) in table.into_iter().enumerate() {
        let mut about = call("c-1", jane());
        about.external_id = format!("call-{round}");
        about.labels = [("team".to_owned(), "north".to_owned())].into();
        let recording = world.put(about, "content").await;
        let anybody = Party {
            tel: "+525587654321".to_owned(),
            ..Default::default()
        };
        let message = put_message(&world, call("c-1", anybody.clone()), "")
            .await
            .unwrap();
        let mut derived = call("c-elsewhere", anybody.clone());
        derived.derived_from = recording.record_id.clone();
        let artifact = put_message(&world, derived, "").await.unwrap();
        assert_eq!(artifact.kind(), RecordKind::Artifact);
        let survivor = world.put(call("c-2", anybody), "content").await;

        let made = [recording, message, artifact];
        let target = choose(&made);
        let going = expected.iter().filter(|goes| **goes).count() as i64;
        let looked = compliance.preview_erasure(preview(target.clone())).await.unwrap();
        assert_eq!(looked.record_count, going, "round {round}");
        assert_eq!(looked.artifact_count, i64::from(expected[2]), "round {round}");
        let mut request = asked(target);
        request.expected_set_sha256 = looked.set_sha256.clone();
        let erased = compliance.request_erasure(request).await.unwrap();
        assert_eq!(
            erased.state(),
            ErasureState::Effective,
            "round {round}: {erased:?}"
        );
        assert_eq!(
            (erased.record_count, erased.shredded_count),
            (going, going),
            "round {round}"
        );
        assert_eq!(erased.set_sha256, looked.set_sha256);
        for (record, goes) in made.iter().zip(expected) {
            if goes {
                expect_gone(&world, record).await;
            } else {
                expect_served(&world, record).await;
            }
        }
        expect_served(&world, &survivor).await;
        // The next round begins with nothing of this one.
        let rest = RecordQuery {
            states: vec![RecordState::Active.into()],
            ..in_conversation("")
        };
        compliance
            .request_erasure(asked(Target::Query(rest)))
            .await
            .unwrap();
        expect_gone(&world, &survivor).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_counts_who_else_is_concerned_and_changes_nothing() {
    let world = World::start().await;
    class_that_keeps(&world, "kept", 10).await;
    let mut about = call("c-1", jane());
    about.retention_class = "kept".to_owned();
    about.parties.extend([
        Party {
            role: PartyRole::Customer.into(),
            tel: "+525587654321".to_owned(),
            ..Default::default()
        },
        Party {
            role: PartyRole::Agent.into(),
            agent_id: "a-1".to_owned(),
            ..Default::default()
        },
    ]);
    let record = world.put(about, "content").await;
    put_message(&world, call("c-2", jane()), "").await.unwrap();
    let compliance = world.client(Role::Compliance).await;
    let jane = Target::Subject(person(Identifier::Tel("+525512345678".to_owned())));
    let looked = compliance.preview_erasure(preview(jane.clone())).await.unwrap();
    assert_eq!((looked.record_count, looked.artifact_count), (2, 0));
    assert_eq!(looked.size_bytes, 7 + 9);
    assert_eq!((looked.shared_record_count, looked.other_subject_count), (1, 1));
    assert_eq!(looked.minimum_retention_count, 1);
    let until = looked.minimum_retention_until.unwrap();
    assert_eq!(until.seconds, record.create_time.unwrap().seconds + 10 * 86_400);
    let mandatory = PreviewErasureRequest {
        ground: ErasureGround::MandatoryDestruction.into(),
        ..preview(jane.clone())
    };
    assert_eq!(
        compliance
            .preview_erasure(mandatory)
            .await
            .unwrap()
            .minimum_retention_count,
        0
    );
    expect_served(&world, &record).await;
    let mut request = asked(jane.clone());
    request.grace = Some(seconds(60));
    compliance.request_erasure(request).await.unwrap();
    let looked = compliance.preview_erasure(preview(jane)).await.unwrap();
    assert_eq!(looked.pending_count, 2);
    let all = compliance
        .preview_erasure(preview(Target::WholeTenant(true)))
        .await
        .unwrap();
    assert_eq!((all.record_count, all.size_bytes), (2, 16));
    assert!(all.set_sha256.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_changed_since_its_preview_is_refused() {
    let world = World::start().await;
    let first = world.put(call("c-1", jane()), "content").await;
    let compliance = world.client(Role::Compliance).await;
    let conversation = Target::ConversationId("c-1".to_owned());
    let looked = compliance
        .preview_erasure(preview(conversation.clone()))
        .await
        .unwrap();
    let second = put_message(&world, call("c-1", jane()), "").await.unwrap();
    let mut request = asked(conversation.clone());
    request.expected_set_sha256 = looked.set_sha256;
    assert_eq!(
        why(compliance.request_erasure(request.clone()).await),
        is("SET_CHANGED", "")
    );
    expect_served(&world, &first).await;
    expect_served(&world, &second).await;
    let looked = compliance.preview_erasure(preview(conversation)).await.unwrap();
    request.expected_set_sha256 = looked.set_sha256;
    let erased = compliance.request_erasure(request).await.unwrap();
    assert_eq!(erased.record_count, 2);
}

// ---- once ----

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_is_asked_for_once_and_other_content_is_refused() {
    let world = World::start().await;
    let [one, two] = [
        world.put(descriptor(), "one").await,
        world.put(descriptor(), "two").await,
    ];
    let compliance = world.client(Role::Compliance).await;
    let mut request = asked(these(&[&one]));
    request.request_id = "e-1".to_owned();
    let first = compliance.request_erasure(request.clone()).await.unwrap();
    let again = compliance.request_erasure(request.clone()).await.unwrap();
    assert_eq!(again, first);
    for other in [
        RequestErasureRequest {
            target: what(these(&[&two])),
            ..request.clone()
        },
        RequestErasureRequest {
            reference: "CASE-2".to_owned(),
            ..request.clone()
        },
        RequestErasureRequest {
            ground: ErasureGround::ContractEnded.into(),
            ..request.clone()
        },
        RequestErasureRequest {
            grace: Some(seconds(1)),
            ..request.clone()
        },
    ] {
        let refused = compliance.request_erasure(other).await;
        assert_eq!(why(refused).0, "REQUEST_ID_REUSED");
    }
    expect_served(&world, &two).await;
    let list = ListErasuresRequest {
        tenant_id: TENANT.to_owned(),
        ..Default::default()
    };
    assert_eq!(compliance.list_erasures(list).await.unwrap().erasures, [first]);
}

#[tokio::test(flavor = "multi_thread")]
async fn erasures_are_listed_newest_first_page_by_page() {
    let world = World::start().await;
    let compliance = world.client(Role::Compliance).await;
    let mut made = Vec::new();
    for _ in 0..3 {
        let record = world.put(descriptor(), "content").await;
        let erased = compliance
            .request_erasure(asked(these(&[&record])))
            .await
            .unwrap();
        made.push(erased.erasure_id);
    }
    made.reverse();
    let mut request = ListErasuresRequest {
        tenant_id: TENANT.to_owned(),
        page_size: 2,
        ..Default::default()
    };
    let mut listed = Vec::new();
    loop {
        let page = compliance.list_erasures(request.clone()).await.unwrap();
        assert!(page.erasures.len() <= 2);
        listed.extend(page.erasures.into_iter().map(|erasure| erasure.erasure_id));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, made);
    request.page_token = "nonsense".to_owned();
    assert_eq!(
        why(compliance.list_erasures(request.clone()).await).1,
        "page_token"
    );
    request.page_token = String::new();
    request.page_size = 1_001;
    assert_eq!(why(compliance.list_erasures(request).await).1, "page_size");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_is_repeated_after_the_shred_is_told_so_and_brings_nothing_back() {
    let world = World::start().await;
    let uploader = world.client(Role::Uploader).await;
    let mut recording = spec(descriptor());
    recording.request_id = "p-1".to_owned();
    let put = || uploader.put_recording(recording.clone(), Content::bytes("content"), None);
    let record = put().await.unwrap();
    let message = put_message(&world, descriptor(), "m-1").await.unwrap();
    let compliance = world.client(Role::Compliance).await;
    let target = these(&[&record, &message]);
    compliance.request_erasure(asked(target)).await.unwrap();
    for refused in [put().await, put_message(&world, descriptor(), "m-1").await] {
        let error = refused.unwrap_err();
        assert_eq!(
            (error.code(), error.reason()),
            (Some(Code::NotFound), Some("SHREDDED"))
        );
    }
    expect_gone(&world, &record).await;
    expect_gone(&world, &message).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_is_repeated_within_the_grace_learns_that_it_was_done_and_nothing_more() {
    let world = World::start().await;
    let about = call("crm-1", jane());
    let record = put_message(&world, about.clone(), "put-1").await.unwrap();
    let compliance = world.client(Role::Compliance).await;
    let mut request = asked(these(&[&record]));
    request.grace = Some(seconds(600));
    compliance.request_erasure(request).await.unwrap();
    let again = put_message(&world, about, "put-1").await.unwrap();
    assert_eq!(again.record_id, record.record_id);
    assert_eq!(again.state(), RecordState::PendingShred);
    assert_eq!(again.descriptor, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_id_is_free_again_when_its_record_is_shredded() {
    let world = World::start().await;
    let mut about = descriptor();
    about.external_id = "x-1".to_owned();
    let first = world.put(about.clone(), "content").await;
    let compliance = world.client(Role::Compliance).await;
    compliance.request_erasure(asked(these(&[&first]))).await.unwrap();
    let second = world.put(about, "other").await;
    assert_ne!(second.record_id, first.record_id);
    expect_served(&world, &second).await;
}

// ---- at once ----

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_what_is_erased_is_cut_and_never_ends_well() {
    for grace in [0, 60] {
        let world = World::start().await;
        let [one, two] = [content(40 * MIB), content(40 * MIB)];
        let (record, other) = (
            world.put(descriptor(), one).await,
            world.put(descriptor(), two).await,
        );
        let reader = world.client(Role::Reader).await;
        let begin = |id: &str| {
            let (reader, id) = (reader.clone(), id.to_owned());
            async move { reader.read_recording(TENANT, &id, 0, 0).await.unwrap() }
        };
        let (mut cut, mut spared) = (begin(&record.record_id).await, begin(&other.record_id).await);
        assert!(cut.next().await.unwrap().is_some() && spared.next().await.unwrap().is_some());
        let compliance = world.client(Role::Compliance).await;
        let mut request = asked(these(&[&record]));
        request.grace = Some(seconds(grace));
        compliance.request_erasure(request).await.unwrap();
        let error = cut.copy_to(&mut tokio::io::sink()).await.unwrap_err();
        assert_eq!(error.code(), Some(Code::NotFound), "{error:?}");
        let read = spared.copy_to(&mut tokio::io::sink()).await.unwrap();
        assert_eq!(read, 40 << 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn within_its_grace_an_erasure_is_unreadable_at_once_and_may_be_taken_back() {
    let world = World::start().await;
    let mut about = call("c-1", jane());
    about.external_id = "x-1".to_owned();
    let record = world.put(about, "content").await;
    let mut derived = descriptor();
    derived.derived_from = record.record_id.clone();
    let artifact = put_message(&world, derived.clone(), "").await.unwrap();
    let compliance = world.client(Role::Compliance).await;
    let mut request = asked(these(&[&record]));
    request.grace = None;
    let pending = compliance.request_erasure(request).await.unwrap();
    assert_eq!(pending.state(), ErasureState::PendingShred);
    let (created, due) = (pending.create_time.unwrap(), pending.due_time.unwrap());
    assert_eq!(due.seconds - created.seconds, 7 * 86_400);
    assert_eq!((pending.record_count, pending.shredded_count), (2, 0));

    let reader = world.client(Role::Reader).await;
    for gone in [&record, &artifact] {
        let name = Name::RecordId(gone.record_id.clone());
        assert_eq!(why(reader.get_record(TENANT, name).await).0, "NOT_FOUND");
        assert_eq!(
            why(reader.get_message(TENANT, &gone.record_id).await).0,
            "NOT_FOUND"
        );
        let read = reader.read_recording(TENANT, &gone.record_id, 0, 0).await;
        assert_eq!(why(read).0, "NOT_FOUND");
    }
    let by_name = reader
        .get_record(TENANT, Name::ExternalId("x-1".to_owned()))
        .await;
    assert_eq!(why(by_name).0, "NOT_FOUND");
    let all = ListRecordsRequest {
        tenant_id: TENANT.to_owned(),
        ..Default::default()
    };
    assert!(reader.list_records(all.clone()).await.unwrap().records.is_empty());
    // Nothing is derived from it any more, and nothing of it is corrected.
    assert!(put_message(&world, derived, "").await.is_err());
    // Whoever answers the person sees that it is there still.
    let by_law = compliance.for_purpose("LegalCompliance").unwrap();
    let seen = by_law
        .get_record(TENANT, Name::RecordId(record.record_id.clone()))
        .await;
    assert_eq!(seen.unwrap().state(), RecordState::PendingShred);

    let cancelled = compliance
        .cancel_erasure(TENANT, &pending.erasure_id)
        .await
        .unwrap();
    assert_eq!(cancelled.state(), ErasureState::Cancelled);
    assert!(cancelled.cancel_time.is_some());
    let again = compliance
        .cancel_erasure(TENANT, &pending.erasure_id)
        .await
        .unwrap();
    assert_eq!(again, cancelled);
    expect_served(&world, &record).await;
    expect_served(&world, &artifact).await;
    assert_eq!(reader.list_records(all).await.unwrap().records.len(), 2);
    // It may be erased all the same, later.
    let erased = compliance
        .request_erasure(asked(these(&[&record])))
        .await
        .unwrap();
    assert_eq!(erased.state(), ErasureState::Effective);
    expect_gone(&world, &record).await;
    expect_gone(&world, &artifact).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_erasures_cover_comes_back_only_when_both_are_taken_back() {
    let world = World::start().await;
    let record = world.put(call("c-1", jane()), "content").await;
    let compliance = world.client(Role::Compliance).await;
    let mut made = Vec::new();
    for target in [these(&[&record]), Target::ConversationId("c-1".to_owned())] {
        let mut request = asked(target);
        request.grace = Some(seconds(600));
        made.push(compliance.request_erasure(request).await.unwrap().erasure_id);
    }
    let reader = world.client(Role::Reader).await;
    compliance.cancel_erasure(TENANT, &made[0]).await.unwrap();
    let read = reader.read_recording(TENANT, &record.record_id, 0, 0).await;
    assert_eq!(why(read).0, "NOT_FOUND");
    compliance.cancel_erasure(TENANT, &made[1]).await.unwrap();
    expect_served(&world, &record).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_its_grace_there_is_no_way_back() {
    let world = World::start().await;
    let [one, two] = [
        world.put(descriptor(), "one").await,
        world.put(descriptor(), "two").await,
    ];
    let compliance = world.client(Role::Compliance).await;
    let mut request = asked(these(&[&one]));
    let grace = Duration::from_millis(200);
    request.grace = Some(prost_types::Duration::try_from(grace).unwrap());
    let pending = compliance.request_erasure(request).await.unwrap();
    assert_eq!(pending.state(), ErasureState::PendingShred);
    tokio::time::sleep(grace).await;
    let late = compliance.cancel_erasure(TENANT, &pending.erasure_id).await;
    assert_eq!(late.as_ref().unwrap_err().code(), Some(Code::FailedPrecondition));
    assert_eq!(why(late).0, "NOT_CANCELLABLE");
    world.vault.carry_out_due().await.unwrap();
    let found = compliance.get_erasure(TENANT, &pending.erasure_id).await.unwrap();
    let done = found.erasure.unwrap();
    assert_eq!((done.state(), done.shredded_count), (ErasureState::Effective, 1));
    assert!(done.effective_time.is_some());
    expect_gone(&world, &one).await;
    let late = compliance.cancel_erasure(TENANT, &pending.erasure_id).await;
    assert_eq!(why(late).0, "NOT_CANCELLABLE");
    expect_served(&world, &two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_go_on_while_records_are_shredded() {
    let world = World::start().await;
    let mut made = Vec::new();
    for _ in 0..60 {
        made.push(put_message(&world, call("c-1", jane()), "").await.unwrap());
    }
    let (going, staying) = made.split_at(40);
    let reader = world.client(Role::Reader).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let listing = tokio::spawn(async move {
        let mut rounds = 0;
        while !*stopped.borrow() || rounds == 0 {
            let request = ListRecordsRequest {
                tenant_id: TENANT.to_owned(),
                ..Default::default()
            };
            let listed = reader.list_records(request).await.unwrap();
            assert!(listed.records.len() >= 20);
            rounds += 1;
        }
        rounds
    });
    let compliance = world.client(Role::Compliance).await;
    for record in going {
        let looked = preview(Target::ConversationId("c-1".to_owned()));
        let looked = compliance.preview_erasure(looked);
        let erased = compliance.request_erasure(asked(these(&[record])));
        let (looked, erased) = tokio::join!(looked, erased);
        assert!(looked.unwrap().record_count >= 20);
        assert_eq!(erased.unwrap().state(), ErasureState::Effective);
    }
    stop.send(true).unwrap();
    assert!(listing.await.unwrap() > 1);
    for record in staying {
        expect_served(&world, record).await;
    }
}

// ---- what stands in the way ----

#[tokio::test(flavor = "multi_thread")]
async fn a_minimum_retention_defers_a_shred_and_mandatory_destruction_goes_before_it() {
    let world = World::start().await;
    class_that_keeps(&world, "kept", 10).await;
    let mut about = call("c-1", jane());
    about.retention_class = "kept".to_owned();
    let kept = world.put(about, "content").await;
    let free = put_message(&world, call("c-1", jane()), "").await.unwrap();
    let compliance = world.client(Role::Compliance).await;
    let conversation = Target::ConversationId("c-1".to_owned());
    let waiting = compliance
        .request_erasure(asked(conversation.clone()))
        .await
        .unwrap();
    assert_eq!(waiting.state(), ErasureState::PendingShred);
    assert_eq!(
        (
            waiting.record_count,
            waiting.shredded_count,
            waiting.waiting_count
        ),
        (2, 1, 1)
    );
    assert_eq!(waiting.obstacle, "MINIMUM_RETENTION");
    assert!(waiting.effective_time.is_none());
    expect_gone(&world, &free).await;
    // It is kept, and nobody reads it.
    let reader = world.client(Role::Reader).await;
    let read = reader.read_recording(TENANT, &kept.record_id, 0, 0).await;
    assert_eq!(why(read).0, "NOT_FOUND");
    let late = compliance.cancel_erasure(TENANT, &waiting.erasure_id).await;
    assert_eq!(why(late).0, "NOT_CANCELLABLE");
    world.vault.carry_out_due().await.unwrap();
    let found = compliance.get_erasure(TENANT, &waiting.erasure_id).await.unwrap();
    assert_eq!(found.erasure.unwrap(), waiting);

    let mandatory = RequestErasureRequest {
        ground: ErasureGround::MandatoryDestruction.into(),
        grace: None,
        ..asked(these(&[&kept]))
    };
    let with_grace = RequestErasureRequest {
        grace: Some(seconds(60)),
        ..mandatory.clone()
    };
    assert_eq!(
        why(compliance.request_erasure(with_grace).await),
        is("INVALID_FIELD", "grace")
    );
    let done = compliance.request_erasure(mandatory).await.unwrap();
    assert_eq!((done.state(), done.shredded_count), (ErasureState::Effective, 1));
    expect_gone(&world, &kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_nothing_to_erase_it_is_said() {
    let world = World::start().await;
    let record = world.put(call("c-1", jane()), "content").await;
    let compliance = world.client(Role::Compliance).await;
    let nobody = Target::Subject(person(Identifier::Tel("+525500000000".to_owned())));
    for target in [
        Target::ConversationId("c-9".to_owned()),
        nobody,
        Target::Query(RecordQuery {
            start_time_until: Some(at(1_000)),
            ..Default::default()
        }),
    ] {
        let looked = compliance.preview_erasure(preview(target.clone())).await.unwrap();
        assert_eq!(looked.record_count, 0);
        let refused = compliance.request_erasure(asked(target)).await;
        assert_eq!(
            refused.as_ref().unwrap_err().code(),
            Some(Code::FailedPrecondition)
        );
        assert_eq!(why(refused).0, "NOTHING_TO_ERASE");
    }
    compliance
        .request_erasure(asked(these(&[&record])))
        .await
        .unwrap();
    let again = compliance.request_erasure(asked(these(&[&record]))).await;
    assert_eq!(why(again), is("NOT_FOUND", "target.records.record_ids[0]"));
}

// ---- bad input ----

type Change = fn(&mut RequestErasureRequest);

fn aim(request: &mut RequestErasureRequest, target: Target) {
    request.target = what(target);
}

const MALFORMED: &[(Change, &str)] = &[
    (|r| r.tenant_id = String::new(), "tenant_id"),
    (|r| r.tenant_id = "dev/../other".to_owned(), "tenant_id"),
    (|r| r.target = None, "target"),
    (|r| r.target = Some(ErasureTarget::default()), "target"),
    (|r| aim(r, named([""; 0])), "target.records.record_ids"),
    (|r| aim(r, named([NOBODY; 1_001])), "target.records.record_ids"),
    (|r| aim(r, named([NOBODY, "x"])), "target.records.record_ids[1]"),
    (
        |r| aim(r, named([NOBODY.to_uppercase()])),
        "target.records.record_ids[0]",
    ),
    (|r| aim(r, Target::WholeTenant(false)), "target.whole_tenant"),
    (
        |r| aim(r, Target::ConversationId(String::new())),
        "target.conversation_id",
    ),
    (
        |r| aim(r, Target::ConversationId("a\u{0}".to_owned())),
        "target.conversation_id",
    ),
    (
        |r| aim(r, Target::Subject(SubjectIdentifier::default())),
        "target.subject",
    ),
    (
        |r| aim(r, Target::Subject(person(Identifier::Tel("55".to_owned())))),
        "target.subject.tel",
    ),
    (
        |r| aim(r, Target::Subject(person(Identifier::Mailto("jane".to_owned())))),
        "target.subject.mailto",
    ),
    (|r| aim(r, Target::Query(RecordQuery::default())), "target.query"),
    (
        |r| {
            aim(
                r,
                Target::Query(RecordQuery {
                    start_time_from: Some(at(2)),
                    start_time_until: Some(at(1)),
                    ..RecordQuery::default()
                }),
            )
        },
        "target.query.start_time_until",
    ),
    (
        |r| {
            aim(
                r,
                Target::Query(RecordQuery {
                    agent_id: "a\u{0}".to_owned(),
                    ..RecordQuery::default()
                }),
            )
        },
        "target.query.agent_id",
    ),
    (|r| r.ground = 0, "ground"),
    (|r| r.reference = String::new(), "reference"),
    (|r| r.reference = "Jane Doe".to_owned(), "reference"),
    (|r| r.reference = "+525512345678".to_owned(), "reference"),
    (|r| r.reference = "jane@example.com".to_owned(), "reference"),
    (|r| r.reference = "x".repeat(65), "reference"),
    (|r| r.grace = Some(seconds(15 * 86_400)), "grace"),
    (|r| r.grace = Some(seconds(-1)), "grace"),
    (|r| r.grace = Some(seconds(i64::MAX)), "grace"),
    (
        |r| r.expected_set_sha256 = vec![0; 31].into(),
        "expected_set_sha256",
    ),
    (|r| r.request_id = "a b\u{0}".to_owned(), "request_id"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_malformed_field_of_an_erasure_is_named_and_nothing_is_erased() {
    let world = World::start().await;
    let record = world.put(descriptor(), "content").await;
    let compliance = world.client(Role::Compliance).await;
    for (change, field) in MALFORMED {
        let mut request = asked(these(&[&record]));
        change(&mut request);
        let answer = compliance.request_erasure(request).await;
        let error = answer.unwrap_err();
        assert_eq!(
            (error.code(), error.field()),
            (Some(Code::InvalidArgument), Some(*field)),
            "{error}"
        );
    }
    for (id, field) in [
        ("", "erasure_id"),
        ("../x", "erasure_id"),
        (&NOBODY[1..], "erasure_id"),
    ] {
        let certificate = compliance.get_certificate(certificate_of(id));
        assert_eq!(
            why(compliance.get_erasure(TENANT, id).await),
            is("INVALID_FIELD", field)
        );
        assert_eq!(
            why(compliance.cancel_erasure(TENANT, id).await),
            is("INVALID_FIELD", field)
        );
        assert_eq!(why(certificate.await), is("INVALID_FIELD", field));
    }
    expect_served(&world, &record).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_with_anything_unknown_is_refused() {
    let world = World::start().await;
    let record = world.put(descriptor(), "content").await;
    let compliance = world.client(Role::Compliance).await;
    let mut unknown = asked(these(&[&record])).encode_to_vec();
    unknown.extend_from_slice(&[0x98, 0x06, 0x01]);
    let reason = async |bytes: Vec<u8>| {
        let status = raw(&compliance, REQUEST, bytes, Some(PURPOSE)).await.unwrap_err();
        status.get_details_error_info().unwrap().reason
    };
    assert_eq!(reason(unknown).await, "UNKNOWN_FIELD");
    let mut unknown = asked(these(&[&record]));
    unknown.ground = 99;
    assert_eq!(reason(unknown.encode_to_vec()).await, "UNKNOWN_ENUM_VALUE");
    expect_served(&world, &record).await;
}

/// A thousand ids are one erasure's most: no field is wrong with them.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_records_may_be_named() {
    let world = World::start().await;
    let record = world.put(descriptor(), "content").await;
    let compliance: Client = world.client(Role::Compliance).await;
    let ids = vec![record.record_id.clone(); 1_000];
    let erased = compliance.request_erasure(asked(named(ids))).await.unwrap();
    assert_eq!((erased.record_count, erased.shredded_count), (1, 1));
    expect_gone(&world, &record).await;
}
