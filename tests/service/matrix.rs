//! Who may call what: `matrix.csv`, written by hand, against a real server. Nothing here knows how access is decided.
//!
//! Every call that reflection lists, for every role, tenant and country; calls that see or open records for every purpose and state as well.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use callvault::{
    client::Client,
    domain::principal::Role,
    proto::v1::{self, *},
};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, ReflectMessage as _, Value};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::{
    erasure::{asked, seconds, these},
    harness::*,
};

const MATRIX: &str = include_str!("matrix.csv");

const TENANTS: [&str; 3] = ["own", "other", "all"];
const PURPOSES: [&str; 4] = ["allowed", "refused", "by-law", "none"];
const STATES: [&str; 4] = ["active", "restricted", "pending", "shredded"];
const COUNTRIES: [&str; 3] = ["home", "abroad", "unknown"];

/// Calls that name a record, and why.
const READS: [&str; 5] = [
    "ReadRecording",
    "GetMessage",
    "BatchGetMessages",
    "GetRecord",
    "ListRecords",
];

/// One line.
#[derive(Clone, Debug)]
struct Line {
    call: String,
    role: String,
    conditions: [String; 4],
    outcome: String,
}

/// What is tried.
#[derive(Clone, Copy, Debug)]
struct Try<'a> {
    call: &'a str,
    role: Role,
    tenant: &'a str,
    purpose: &'a str,
    state: &'a str,
    country: &'a str,
}

fn lines() -> Vec<Line> {
    let rows = MATRIX
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    rows.skip(1)
        .map(|row| {
            let cells: Vec<String> = row.split(',').map(|cell| cell.trim().to_owned()).collect();
            let [call, role, tenant, purpose, state, country, outcome] =
                <[String; 7]>::try_from(cells).unwrap_or_else(|cells| panic!("{cells:?}"));
            Line {
                call,
                role,
                conditions: [tenant, purpose, state, country],
                outcome,
            }
        })
        .collect()
}

impl Line {
    fn is_exception(&self) -> bool {
        self.conditions.iter().any(|condition| condition != "*")
    }

    fn holds(&self, tried: &Try<'_>) -> bool {
        let fits = |pattern: &str, value: &str| pattern == "*" || pattern.split('|').any(|one| one == value);
        let values = [tried.tenant, tried.purpose, tried.state, tried.country];
        fits(&self.call, tried.call)
            && fits(&self.role, tried.role.name())
            && self
                .conditions
                .iter()
                .zip(values)
                .all(|(pattern, value)| fits(pattern, value))
    }
}

/// The line of call and role; if it is `denied` nothing else counts, otherwise the first exception that holds.
fn expected<'a>(lines: &'a [Line], tried: &Try<'_>) -> &'a str {
    let of_role: Vec<&Line> = lines
        .iter()
        .filter(|line| !line.is_exception() && line.holds(tried))
        .collect();
    let [usual] = of_role[..] else {
        panic!("{} lines for {} as {}", of_role.len(), tried.call, tried.role);
    };
    if usual.outcome == "denied" {
        return &usual.outcome;
    }
    let exception = lines.iter().find(|line| line.is_exception() && line.holds(tried));
    &exception.unwrap_or(usual).outcome
}

/// A record of each state, a recording and a message.
struct Records(BTreeMap<&'static str, (Record, Record)>);

impl Records {
    async fn make(world: &World) -> Self {
        let mut made = BTreeMap::new();
        let compliance = world.client(Role::Compliance).await;
        for state in STATES {
            let about = |name: &str| Descriptor {
                conversation_id: format!("{state}-{name}"),
                parties: vec![Party {
                    role: PartyRole::Agent.into(),
                    agent_id: BEARER_AGENT.to_owned(),
                    team: BEARER_TEAM.to_owned(),
                    ..Default::default()
                }],
                allowed_purposes: vec![Purpose::ServiceProvision.into()],
                age_flag: if state == "restricted" {
                    AgeFlag::Child.into()
                } else {
                    0
                },
                ..descriptor()
            };
            let recording = world.put(about("recording"), "content").await;
            let uploader = world.client(Role::Uploader).await;
            let message = PutMessageRequest {
                tenant_id: TENANT.to_owned(),
                descriptor: Some(about("message")),
                body: "a message".into(),
                ..Default::default()
            };
            let message = uploader.put_message(message).await.unwrap();
            if matches!(state, "pending" | "shredded") {
                let mut erasure = asked(these(&[&recording, &message]));
                erasure.grace = Some(seconds(if state == "pending" { 600 } else { 0 }));
                compliance.request_erasure(erasure).await.unwrap();
            }
            made.insert(state, (recording, message));
        }
        Self(made)
    }

    fn of(&self, call: &str, state: &str) -> &Record {
        let (recording, message) = &self.0[state];
        if matches!(call, "GetMessage" | "BatchGetMessages") {
            message
        } else {
            recording
        }
    }
}

fn methods() -> Vec<MethodDescriptor> {
    let pool = DescriptorPool::decode(v1::FILE_DESCRIPTOR_SET).unwrap();
    let of_service = |service: prost_reflect::ServiceDescriptor| service.methods().collect::<Vec<_>>();
    pool.services().flat_map(of_service).collect()
}

/// What is sent. Where a call changes something it is malformed in a field that is looked at last: whoever may call is told that.
fn request(method: &MethodDescriptor, tried: &Try<'_>, records: &Records) -> Bytes {
    let tenant = if tried.tenant == "other" { OTHER } else { TENANT };
    let record = records.of(tried.call, tried.state);
    let (tenant, id) = (tenant.to_owned(), record.record_id.clone());
    match tried.call {
        "ReadRecording" => ReadRecordingRequest {
            tenant_id: tenant,
            record_id: id,
            ..Default::default()
        }
        .encode_to_vec(),
        "GetMessage" => GetMessageRequest {
            tenant_id: tenant,
            record_id: id,
        }
        .encode_to_vec(),
        "BatchGetMessages" => BatchGetMessagesRequest {
            tenant_id: tenant,
            record_ids: vec![id],
        }
        .encode_to_vec(),
        "GetRecord" => GetRecordRequest {
            tenant_id: tenant,
            name: Some(get_record_request::Name::RecordId(id)),
        }
        .encode_to_vec(),
        "ListRecords" => ListRecordsRequest {
            tenant_id: tenant,
            query: Some(RecordQuery {
                conversation_id: format!("{}-recording", tried.state),
                ..Default::default()
            }),
            ..Default::default()
        }
        .encode_to_vec(),
        "PutRecording" => PutRecordingRequest {
            payload: Some(put_recording_request::Payload::Spec(PutRecordingSpec {
                tenant_id: tenant,
                ..Default::default()
            })),
        }
        .encode_to_vec(),
        "WriteUpload" => WriteUploadRequest {
            payload: Some(write_upload_request::Payload::Header(WriteUploadHeader {
                tenant_id: tenant,
                ..Default::default()
            })),
        }
        .encode_to_vec(),
        _ => {
            let mut message = DynamicMessage::new(method.input());
            for (field, value) in [("tenant_id", tenant.as_str()), ("request_id", "\u{1}")] {
                if message.descriptor().get_field_by_name(field).is_some() {
                    message.set_field_by_name(field, Value::String(value.to_owned()));
                }
            }
            message.encode_to_vec()
        }
    }
    .into()
}

async fn outcome(
    client: &Client,
    token: &str,
    method: &MethodDescriptor,
    tried: &Try<'_>,
    sent: Bytes,
) -> String {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let mut call = tonic::client::Grpc::new(client.channel());
    call.ready().await.unwrap();
    let mut request = Request::new(sent);
    let metadata = request.metadata_mut();
    metadata.insert("authorization", format!("Bearer {token}").parse().unwrap());
    let purpose = match tried.purpose {
        "allowed" => Some("ServiceProvision"),
        "refused" => Some("DirectMarketing"),
        "by-law" => Some("RightsFulfilment"),
        _ => None,
    };
    if let Some(purpose) = purpose {
        metadata.insert("callvault-purpose", purpose.parse().unwrap());
    }
    let answered = async {
        let mut stream = call
            .server_streaming(request, path.parse().unwrap(), Raw)
            .await?
            .into_inner();
        let mut first = None;
        while let Some(message) = stream.message().await? {
            first.get_or_insert(message);
        }
        Ok::<Bytes, Status>(first.unwrap_or_default())
    };
    match answered.await {
        Ok(answer) => what_came(tried, answer),
        Err(status) => refusal(
            status.code(),
            status.get_details_error_info().map(|info| info.reason),
        ),
    }
}

/// Whether there was anything in an answer.
fn what_came(tried: &Try<'_>, answer: Bytes) -> String {
    match tried.call {
        "ListRecords"
            if ListRecordsResponse::decode(answer.clone())
                .unwrap()
                .records
                .is_empty() =>
        {
            "nothing".to_owned()
        }
        "BatchGetMessages" => {
            use get_message_result::Result as R;
            let results = BatchGetMessagesResponse::decode(answer).unwrap().results;
            match results.into_iter().next().unwrap().result.unwrap() {
                R::Message(_) => "ok".to_owned(),
                R::Error(status) => {
                    let info = status.details.iter().find_map(|any| {
                        tonic_types::pb::ErrorInfo::decode(&*any.value)
                            .ok()
                            .filter(|_| any.type_url.ends_with("ErrorInfo"))
                    });
                    refusal(Code::from(status.code), info.map(|info| info.reason))
                }
            }
        }
        _ => "ok".to_owned(),
    }
}

/// In the words of the matrix.
fn refusal(code: Code, reason: Option<String>) -> String {
    let reason = reason.unwrap_or_default();
    match (code, reason.as_str()) {
        (Code::PermissionDenied, "ROLE_DENIED") => "denied".to_owned(),
        (Code::PermissionDenied, "SCOPE") => "scope".to_owned(),
        (Code::PermissionDenied, "PURPOSE_DENIED") => "purpose".to_owned(),
        (Code::PermissionDenied, "COUNTRY_DENIED") => "country".to_owned(),
        (Code::FailedPrecondition, "RESTRICTED") => "restricted".to_owned(),
        (Code::InvalidArgument, "PURPOSE_REQUIRED") => "why".to_owned(),
        (Code::NotFound, _) => "hidden".to_owned(),
        (Code::InvalidArgument, _) => "ok".to_owned(),
        (code, reason) => format!("{code:?} {reason}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_does_for_every_role_what_the_matrix_says() {
    let (world, bearers) = World::of_bearers().await;
    let records = Records::make(&world).await;
    let client = world.bare_client().await;
    let lines = lines();
    let methods = methods();
    let called: BTreeSet<&str> = lines
        .iter()
        .filter(|line| !line.is_exception())
        .map(|line| line.call.as_str())
        .collect();
    let listed: BTreeSet<&str> = methods.iter().map(|method| method.name()).collect();
    assert_eq!(called, listed, "a line for each call that reflection lists");
    let (mut wrong, mut tries) = (Vec::new(), 0);
    for method in &methods {
        let is_read = READS.contains(&method.name());
        let purposes: &[&str] = if is_read { &PURPOSES } else { &PURPOSES[..1] };
        let states: &[&str] = if is_read { &STATES } else { &STATES[..1] };
        for (role, tenant, country) in combinations() {
            let token = bearers.token(role, country, tenant == "all");
            for purpose in purposes {
                for state in states {
                    let tried = Try {
                        call: method.name(),
                        role,
                        tenant,
                        purpose,
                        state,
                        country,
                    };
                    let sent = request(method, &tried, &records);
                    let got = outcome(&client, &token, method, &tried, sent).await;
                    tries += 1;
                    let expected = expected(&lines, &tried);
                    if got != expected {
                        wrong.push(format!("{tried:?}: {got}, not {expected}"));
                    }
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {tries}:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(40)].join("\n")
    );
    assert!(tries > 9_000, "{tries}");
}

fn combinations() -> impl Iterator<Item = (Role, &'static str, &'static str)> {
    let roles = Role::ALL.iter().copied();
    roles.flat_map(|role| {
        let tenants = TENANTS.into_iter();
        tenants.flat_map(move |tenant| COUNTRIES.into_iter().map(move |country| (role, tenant, country)))
    })
}
