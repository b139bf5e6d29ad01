//! Uploads and reads through a real server process, beside a bare tonic service with the same TLS, frames, windows and chunks.
//!
//! ```text
//! cargo bench --bench throughput -- [GIB_PER_STREAM] [STREAMS]        default 1 4
//! ```
//!
//! Prints a Markdown table: GB/s end to end, server CPU-seconds per GiB (from `/proc/<pid>/stat`), and ratios of the same run. The
//! data directory is made below `CALLVAULT_BENCH_DIR` (default: the system's temporary directory) and removed.

use std::{
    env,
    error::Error,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    pin::Pin,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use callvault::{
    client::{Client, ClientFile},
    config::Config,
    domain::clock::SystemClock,
    proto::v1::{
        self, Channel, Descriptor, GetRecordRequest, GetRecordResponse, ListRecordsRequest,
        ListRecordsResponse, PutRecordingRequest, PutRecordingResponse, PutRecordingSpec,
        ReadRecordingHeader, ReadRecordingRequest, ReadRecordingResponse, Record, UpdateRecordRequest,
        UpdateRecordResponse, put_recording_request, read_recording_response,
        record_service_client::RecordServiceClient,
        record_service_server::{RecordService, RecordServiceServer},
    },
    server::{Addresses, Drain, Server, ServerTls, pki::DevPki},
};
use futures_util::{Stream, stream};
use tonic::{Request, Response, Status, Streaming};

type Failure = Box<dyn Error + Send + Sync>;

/// Content bytes of one message of an upload.
const CHUNK: usize = 1 << 20;
/// Content bytes of one message of a read: a segment, as the vault sends it.
const READ_CHUNK: usize = callvault::crypto::stream::SEGMENT_LEN - callvault::crypto::stream::TAG_LEN;
const GIB: u64 = 1 << 30;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).filter(|a| a != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Some(data) = arguments.first().filter(|a| a.starts_with("bare=")) {
        return runtime.block_on(serve_bare(Path::new(&data["bare=".len()..])));
    }
    let number = |at: usize, default| arguments.get(at).and_then(|a| a.parse().ok()).unwrap_or(default);
    runtime.block_on(measure(number(0, 1) * GIB, number(1, 4)))
}

async fn measure(bytes: u64, streams: u64) -> Result<(), Failure> {
    let below = env::var_os("CALLVAULT_BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from);
    let dir = tempfile::Builder::new()
        .prefix("callvault-bench")
        .tempdir_in(below)?;
    let data = dir.path().join("data");
    let total = (bytes * streams) as f64;
    println!("{streams} streams of {} GiB each\n", bytes / GIB);
    println!(
        "| server | upload GB/s | upload CPU-s/GiB | read GB/s | read CPU-s/GiB |\n|---|---|---|---|---|"
    );
    let mut rows = Vec::new();
    for name in ["callvault", "bare tonic"] {
        let server = if name == "callvault" {
            Process::vault(&data)?
        } else {
            Process::bare(&data)?
        };
        let client = Arc::new(connect(&data, &server.address, "uploader").await?);
        let (up, records) = timed(&server, total, || upload(&client, bytes, streams)).await?;
        let client = Arc::new(connect(&data, &server.address, "reader").await?);
        let (down, _) = timed(&server, total, || read(&client, records, bytes)).await?;
        println!(
            "| {name} | {:.2} | {:.2} | {:.2} | {:.2} |",
            up.0, up.1, down.0, down.1
        );
        rows.push((up, down));
    }
    let [(up, down), (bare_up, bare_down)] = rows[..] else {
        return Err("two rows".into());
    };
    println!(
        "| callvault / bare | {:.2} | {:.2} | {:.2} | {:.2} |",
        up.0 / bare_up.0,
        up.1 / bare_up.1,
        down.0 / bare_down.0,
        down.1 / bare_down.1
    );
    Ok(())
}

/// GB/s and server CPU-seconds per GiB of some work.
async fn timed<T, F: Future<Output = Result<T, Failure>>>(
    server: &Process,
    bytes: f64,
    work: impl FnOnce() -> F,
) -> Result<((f64, f64), T), Failure> {
    let (start, cpu) = (Instant::now(), server.cpu_seconds()?);
    let done = work().await?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu = server.cpu_seconds()? - cpu;
    Ok(((bytes / 1e9 / seconds, cpu / (bytes / GIB as f64)), done))
}

async fn upload(client: &Arc<Client>, bytes: u64, streams: u64) -> Result<Vec<String>, Failure> {
    let chunk = Bytes::from((0..CHUNK).map(|n| (n * 31 % 251) as u8).collect::<Vec<u8>>());
    let uploads = (0..streams).map(|_| {
        let (client, chunk) = (Arc::clone(client), chunk.clone());
        tokio::spawn(async move { upload_one(&client, chunk, bytes).await })
    });
    let mut records = Vec::new();
    for upload in uploads.collect::<Vec<_>>() {
        records.push(upload.await??);
    }
    Ok(records)
}

async fn upload_one(client: &Client, chunk: Bytes, bytes: u64) -> Result<String, Failure> {
    let descriptor = Descriptor {
        conversation_id: "bench".into(),
        channel: Channel::Voice.into(),
        start_time: Some(prost_types::Timestamp {
            seconds: 1_795_478_400,
            nanos: 0,
        }),
        ..Descriptor::default()
    };
    let spec = PutRecordingSpec {
        tenant_id: "dev".into(),
        descriptor: Some(descriptor),
        ..PutRecordingSpec::default()
    };
    let message = |payload| PutRecordingRequest {
        payload: Some(payload),
    };
    let first = message(put_recording_request::Payload::Spec(spec));
    let chunks =
        (0..bytes / CHUNK as u64).map(move |_| message(put_recording_request::Payload::Chunk(chunk.clone())));
    let request = stream::iter(std::iter::once(first).chain(chunks));
    let answer = RecordServiceClient::new(client.channel())
        .put_recording(request)
        .await?;
    Ok(answer
        .into_inner()
        .record
        .map(|r| r.record_id)
        .unwrap_or_default())
}

async fn read(client: &Arc<Client>, records: Vec<String>, bytes: u64) -> Result<(), Failure> {
    let reads = records.into_iter().map(|record| {
        let client = Arc::clone(client);
        tokio::spawn(async move { read_one(&client, record, bytes).await })
    });
    for read in reads.collect::<Vec<_>>() {
        read.await??;
    }
    Ok(())
}

async fn read_one(client: &Client, record_id: String, bytes: u64) -> Result<(), Failure> {
    // A bare server has no records: the length travels in the limit, which the vault takes as well.
    let limit = i64::try_from(bytes)?;
    let mut request = Request::new(ReadRecordingRequest {
        tenant_id: "dev".into(),
        record_id,
        offset: 0,
        limit,
    });
    request
        .metadata_mut()
        .insert("callvault-purpose", "ServiceProvision".parse()?);
    let mut content = RecordServiceClient::new(client.channel())
        .read_recording(request)
        .await?
        .into_inner();
    let mut got = 0;
    while let Some(message) = content.message().await? {
        if let Some(read_recording_response::Payload::Chunk(chunk)) = message.payload {
            got += chunk.len() as u64;
        }
    }
    if got == bytes {
        Ok(())
    } else {
        Err(format!("read {got} bytes of {bytes}").into())
    }
}

async fn connect(data: &Path, address: &str, role: &str) -> Result<Client, Failure> {
    let mut config = ClientFile::load(&data.join("client.toml"))?.role(role)?;
    config.endpoint = format!("https://{address}");
    Ok(Client::connect(&config).await?)
}

/// A server in a process of its own.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    fn vault(data: &Path) -> Result<Self, Failure> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_callvault"));
        command
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data"])
            .arg(data);
        Self::start(command)
    }

    /// This program as a server that stores nothing, with the certificates of the vault measured before.
    fn bare(data: &Path) -> Result<Self, Failure> {
        let mut command = Command::new(env::current_exe()?);
        command.arg(format!("bare={}", data.display()));
        Self::start(command)
    }

    fn start(mut command: Command) -> Result<Self, Failure> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let out = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut lines = out.lines();
        while let Some(line) = lines.next().transpose()? {
            if let Some((_, address)) = line.split_once("ready listening=") {
                let address = address.trim().to_owned();
                // Whoever writes to a pipe that nobody reads is held up.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Self { child, address });
            }
        }
        Err("the server did not start".into())
    }

    /// User and system time of the process so far; ticks are a hundredth of a second.
    fn cpu_seconds(&self) -> Result<f64, Failure> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .ok_or("stat")?
            .1
            .split_whitespace()
            .collect();
        Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn serve_bare(data: &Path) -> Result<(), Failure> {
    let pki = DevPki::open(data, &SystemClock)?;
    let config = Config::dev(data, "127.0.0.1:0".parse()?)?;
    let tls = Arc::new(ServerTls::load(&pki.tls())?);
    let addresses = Addresses {
        api: config.listen,
        ops: None,
    };
    let server = Server::bind(
        addresses,
        config.limits,
        tls,
        Arc::new(DevPki::identities()?),
        Drain::new(),
    )
    .await?;
    println!("ready listening={}", server.api_address()?);
    let service = RecordServiceServer::new(Bare).max_decoding_message_size(callvault::grpc::DECODE_BYTES);
    server.run(tonic::service::Routes::new(service)).await?;
    Ok(())
}

/// Takes and gives bytes, and does nothing with them.
struct Bare;

#[tonic::async_trait]
impl RecordService for Bare {
    async fn put_recording(
        &self,
        request: Request<Streaming<PutRecordingRequest>>,
    ) -> Result<Response<PutRecordingResponse>, Status> {
        let mut messages = request.into_inner();
        while messages.message().await?.is_some() {}
        Ok(Response::new(PutRecordingResponse {
            record: Some(Record::default()),
        }))
    }

    type ReadRecordingStream = Pin<Box<dyn Stream<Item = Result<ReadRecordingResponse, Status>> + Send>>;

    async fn read_recording(
        &self,
        request: Request<ReadRecordingRequest>,
    ) -> Result<Response<Self::ReadRecordingStream>, Status> {
        let length = request.into_inner().limit;
        let message = |payload| {
            Ok(ReadRecordingResponse {
                payload: Some(payload),
            })
        };
        let header = ReadRecordingHeader {
            record: None,
            offset: 0,
            length,
        };
        let first = message(read_recording_response::Payload::Header(header));
        let chunk = Bytes::from(vec![7; READ_CHUNK]);
        let chunks = (0..length as usize).step_by(READ_CHUNK).map(move |at| {
            let chunk = chunk.slice(..READ_CHUNK.min(length as usize - at));
            message(read_recording_response::Payload::Chunk(chunk))
        });
        Ok(Response::new(Box::pin(stream::iter(
            std::iter::once(first).chain(chunks),
        ))))
    }

    async fn get_record(&self, _: Request<GetRecordRequest>) -> Result<Response<GetRecordResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn list_records(
        &self,
        _: Request<ListRecordsRequest>,
    ) -> Result<Response<ListRecordsResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn update_record(
        &self,
        _: Request<UpdateRecordRequest>,
    ) -> Result<Response<UpdateRecordResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn put_message(
        &self,
        _: Request<v1::PutMessageRequest>,
    ) -> Result<Response<v1::PutMessageResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn batch_put_messages(
        &self,
        _: Request<v1::BatchPutMessagesRequest>,
    ) -> Result<Response<v1::BatchPutMessagesResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn get_message(
        &self,
        _: Request<v1::GetMessageRequest>,
    ) -> Result<Response<v1::GetMessageResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn batch_get_messages(
        &self,
        _: Request<v1::BatchGetMessagesRequest>,
    ) -> Result<Response<v1::BatchGetMessagesResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn begin_upload(
        &self,
        _: Request<v1::BeginUploadRequest>,
    ) -> Result<Response<v1::BeginUploadResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn write_upload(
        &self,
        _: Request<Streaming<v1::WriteUploadRequest>>,
    ) -> Result<Response<v1::WriteUploadResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn get_upload(
        &self,
        _: Request<v1::GetUploadRequest>,
    ) -> Result<Response<v1::GetUploadResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn commit_upload(
        &self,
        _: Request<v1::CommitUploadRequest>,
    ) -> Result<Response<v1::CommitUploadResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn abort_upload(
        &self,
        _: Request<v1::AbortUploadRequest>,
    ) -> Result<Response<v1::AbortUploadResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }
}
