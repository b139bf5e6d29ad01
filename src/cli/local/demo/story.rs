//! What happens in the demo, in order.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;

use super::{
    content, erasing, messages, resume,
    search::Secrets,
    steps::{Steps, must},
};
use crate::{
    app::{DEV_TENANT, Instance, Mode, Offline},
    cli::{CliError, terminal},
    client::{Client, ClientFile, Code},
    config::Config,
    domain::clock::{Clock, SystemClock},
    proto::v1::{
        Channel, Descriptor, Direction, ListRecordsRequest, Party, PartyRole, PutRecordingSpec, Record,
        RecordKind, RecordQuery, SubjectIdentifier, get_record_request::Name, subject_identifier::Identifier,
    },
};

const CONVERSATION: &str = "conversation-7f3a91c2";
const SECOND_CONVERSATION: &str = "conversation-91d0e5b7";
/// Two calls, three messages, a transcript.
const RECORDS: u64 = 6;
/// The messages share one.
const BLOBS: u64 = 4;
const EXTERNAL_ID: &str = "pbx-call-000421-demo";
const TEL: &str = "+525512345678";
const NAME: &str = "Guadalupe Hernandez Rios";
const LABEL: &str = "billing-complaints";
/// From 20 ms of sound to 64 KiB, as platforms send it.
const CHUNKS: [usize; 4] = [640, 4_096, 16_384, 65_536];
const WINDOW: usize = 32;
const WINDOWS: usize = 64;
const RANGE: usize = 480_000;

/// Tells all of it below `place`.
pub(super) async fn tell(place: &Path, file: Option<&Path>) -> Result<(), CliError> {
    terminal::say("callvault demo\n")?;
    let mut steps = Steps::begin();
    let call = content(file)?;
    must(!call.is_empty(), "the call is empty")?;
    let about = match file {
        Some(path) => path.display().to_string(),
        None => format!("5 min stereo WAV, {}", terminal::bytes(call.len() as u64)),
    };
    steps.done("a call is recorded", &about)?;

    let config = Config::dev(&place.join("data"), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let server = Instance::start(&config, Mode::Dev).await?;
    steps.done(
        "a server starts: TLS 1.3, client certificates, new keys",
        &server.address().to_string(),
    )?;

    let callers = Callers::at(&config.data).await?;
    let record = upload(&callers.uploader, &call).await?;
    let rate = steps.rate(call.len());
    steps.done("it is streamed in, sealed, durable before the answer", &rate)?;

    read_everything(&callers, &record, &call, &mut steps).await?;
    uploader_is_refused(&callers.uploader, &record).await?;
    steps.done("whoever uploads may not read back: PERMISSION_DENIED", "")?;
    let written = messages::put(
        &callers,
        &descriptor(CONVERSATION, EXTERNAL_ID),
        &record,
        &mut steps,
    )
    .await?;
    written.read_back(&callers, &record, &mut steps).await?;

    drop(callers);
    server.stop().await?;
    steps.done("the server drains and stops", "")?;
    let second = descriptor(SECOND_CONVERSATION, "");
    let second = resume::tell(&config.data, &call, second, &mut steps).await?;
    search(place, &call, &mut steps).await?;

    std::fs::remove_dir_all(config.data.join("index"))?;
    steps.done("the index is deleted", "")?;
    let server = Instance::start(&config, Mode::Dev).await?;
    let caught_up = server.records_caught_up();
    must(
        caught_up == RECORDS,
        "the rebuilt index does not hold every record",
    )?;
    let detail = format!("{RECORDS} records");
    steps.done("a server starts: the bucket alone rebuilds the index", &detail)?;
    let callers = Callers::at(&config.data).await?;
    read_everything(&callers, &record, &call, &mut steps).await?;
    written.read_back(&callers, &record, &mut steps).await?;
    must(
        read(&callers.reader, &second, 0, 0).await? == call,
        "the second call came back changed",
    )?;
    drop(callers);
    server.stop().await?;
    steps.done("the server drains and stops", "")?;
    erasing::tell(&config, place, &second, &call, &mut steps).await?;
    verify(&config, &mut steps).await?;
    steps.end()
}

/// Who calls in the story.
pub(super) struct Callers {
    pub(super) uploader: Client,
    pub(super) reader: Client,
}

impl Callers {
    /// As the client file of a server's data directory says.
    pub(super) async fn at(data: &Path) -> Result<Self, CliError> {
        let file = ClientFile::load(&data.join("client.toml"))?;
        Ok(Self {
            uploader: Client::connect(&file.role("uploader")?).await?,
            reader: Client::connect(&file.role("reader")?).await?,
        })
    }
}

async fn upload(uploader: &Client, call: &Bytes) -> Result<Record, CliError> {
    let mut upload = uploader.begin_upload(spec()).await?;
    let mut rest = call.clone();
    let mut lengths = CHUNKS.iter().cycle();
    while !rest.is_empty() {
        let length = lengths.next().copied().unwrap_or(WINDOW).min(rest.len());
        upload.write(rest.split_to(length)).await?;
    }
    let record = upload.finish(None).await?;
    must(
        u64::try_from(record.size_bytes) == Ok(call.len() as u64),
        "the record has another size than the call",
    )?;
    Ok(record)
}

fn spec() -> PutRecordingSpec {
    PutRecordingSpec {
        tenant_id: DEV_TENANT.to_owned(),
        descriptor: Some(descriptor(CONVERSATION, EXTERNAL_ID)),
        ..PutRecordingSpec::default()
    }
}

fn descriptor(conversation: &str, external_id: &str) -> Descriptor {
    let now = SystemClock.now().micros();
    let customer = Party {
        role: PartyRole::Customer as i32,
        tel: TEL.to_owned(),
        name: NAME.to_owned(),
        ..Party::default()
    };
    let agent = Party {
        role: PartyRole::Agent as i32,
        agent_id: "agent-17".to_owned(),
        ..Party::default()
    };
    Descriptor {
        conversation_id: conversation.to_owned(),
        channel: Channel::Voice as i32,
        direction: Direction::Inbound as i32,
        start_time: Some(prost_types::Timestamp {
            seconds: now.div_euclid(1_000_000),
            nanos: 0,
        }),
        parties: vec![customer, agent],
        languages: vec!["es-MX".to_owned()],
        labels: [("queue".to_owned(), LABEL.to_owned())].into(),
        external_id: external_id.to_owned(),
        ..Descriptor::default()
    }
}

/// Whole, in part, and found by all that it is known by.
async fn read_everything(
    callers: &Callers,
    record: &Record,
    call: &Bytes,
    steps: &mut Steps,
) -> Result<(), CliError> {
    let reader = &callers.reader;
    let back = read(reader, record, 0, 0).await?;
    must(back == call, "the call came back changed")?;
    let rate = steps.rate(call.len());
    steps.done("it is read back whole: equal, byte for byte", &rate)?;

    let offset = call.len() / 2;
    let length = RANGE.min(call.len() - offset);
    let part = read(reader, record, offset as u64, length as u64).await?;
    must(part == call[offset..offset + length], "a range came back changed")?;
    let detail = format!("{} from byte {offset}", terminal::bytes(length as u64));
    steps.done("a range from the middle: equal", &detail)?;

    let recordings = || RecordQuery {
        kinds: vec![RecordKind::Recording as i32],
        ..RecordQuery::default()
    };
    let by_conversation = RecordQuery {
        conversation_id: CONVERSATION.to_owned(),
        ..recordings()
    };
    found_by(reader, by_conversation, record).await?;
    steps.done("it is found by its conversation", CONVERSATION)?;
    let by_tel = RecordQuery {
        subject: Some(SubjectIdentifier {
            identifier: Some(Identifier::Tel(TEL.to_owned())),
        }),
        // The second call has the same caller.
        conversation_id: CONVERSATION.to_owned(),
        ..recordings()
    };
    found_by(reader, by_tel, record).await?;
    steps.done("it is found by its telephone number", TEL)?;
    let name = Name::ExternalId(EXTERNAL_ID.to_owned());
    let same = reader.get_record(DEV_TENANT, name).await?;
    must(same == *record, "the record came back changed")?;
    steps.done("it is known by the platform's own id", EXTERNAL_ID)
}

pub(super) async fn read(
    reader: &Client,
    record: &Record,
    offset: u64,
    limit: u64,
) -> Result<Bytes, CliError> {
    let mut download = reader
        .read_recording(DEV_TENANT, &record.record_id, offset, limit)
        .await?;
    let mut all = BytesMut::with_capacity(usize::try_from(download.header().length).unwrap_or(0));
    while let Some(bytes) = download.next().await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all.freeze())
}

pub(super) async fn found_by(reader: &Client, query: RecordQuery, record: &Record) -> Result<(), CliError> {
    let request = ListRecordsRequest {
        tenant_id: DEV_TENANT.to_owned(),
        query: Some(query),
        ..ListRecordsRequest::default()
    };
    let found: Vec<Record> = reader.all_records(request).try_collect().await?;
    must(
        found == [record.clone()],
        "the search did not find the record, and it alone",
    )
}

async fn uploader_is_refused(uploader: &Client, record: &Record) -> Result<(), CliError> {
    let answer = uploader.read_recording(DEV_TENANT, &record.record_id, 0, 0).await;
    let code = answer.err().and_then(|error| error.code());
    must(
        code == Some(Code::PermissionDenied),
        "an uploader could read back",
    )
}

/// Nothing of the call lies in any file, and the search would have seen it.
async fn search(place: &Path, call: &Bytes, steps: &mut Steps) -> Result<(), CliError> {
    let (place, call) = (place.to_owned(), call.clone());
    let (count, searched, control) = tokio::task::spawn_blocking(move || {
        let secrets = secrets(&call);
        let searched = secrets.search(&place)?;
        // A search that finds nothing proves something only if it can find.
        let planted = tempfile::tempdir()?;
        std::fs::write(planted.path().join("planted"), &call)?;
        let control = secrets.search(planted.path())?;
        Ok::<_, std::io::Error>((secrets.len(), searched, control))
    })
    .await
    .map_err(std::io::Error::other)??;
    must(
        searched.found.is_empty(),
        &format!("plaintext was found: {}", searched.found.join(", ")),
    )?;
    must(
        !control.found.is_empty(),
        "the search does not find what is there",
    )?;
    let detail = format!(
        "{count} secrets sought, {} files, {}",
        searched.files,
        terminal::bytes(searched.bytes)
    );
    steps.done("no plaintext in the data directory or beside it", &detail)
}

/// Windows of sound, the header, and what is known of the people.
fn secrets(call: &Bytes) -> Secrets {
    let header = ("the header".to_owned(), &call[..call.len().min(44)]);
    let last = call.len().saturating_sub(WINDOW);
    let windows = (1..=WINDOWS).map(|i| {
        let at = last / WINDOWS * i;
        (
            format!("sound at byte {at}"),
            &call[at..(at + WINDOW).min(call.len())],
        )
    });
    let words = [
        CONVERSATION,
        SECOND_CONVERSATION,
        EXTERNAL_ID,
        TEL,
        TEL.trim_start_matches('+'),
        NAME,
        LABEL,
        messages::TRANSCRIPT,
    ];
    let words = words.into_iter().chain(messages::CHAT);
    let words = words.map(|word| (word.to_owned(), word.as_bytes()));
    Secrets::new(std::iter::once(header).chain(windows).chain(words))
}

async fn verify(config: &Config, steps: &mut Steps) -> Result<(), CliError> {
    let vault = Offline::open(config).await?;
    let report = vault.verify().await;
    vault.close().await;
    let report = report?;
    let findings: Vec<_> = report
        .findings
        .iter()
        .map(|f| format!("{}: {}", f.subject, f.what))
        .collect();
    must(
        findings.is_empty(),
        &format!("the scrub found {}", findings.join(", ")),
    )?;
    must(
        (report.records, report.blobs) == (RECORDS - 1, BLOBS - 1),
        "the scrub did not see every record but the erased one",
    )?;
    let detail = format!(
        "{} logs, {} leaves, {} records",
        report.logs, report.leaves, report.records
    );
    steps.done("every log, leaf, row, footer and byte is verified", &detail)
}
