//! A second call: its server is killed in the middle, and the upload goes on.

use std::path::Path;

use bytes::Bytes;

use super::{
    process::Process,
    steps::{Steps, must},
    story::{Callers, read},
};
use crate::{
    app::DEV_TENANT,
    cli::{CliError, terminal},
    proto::v1::{BeginUploadRequest, Descriptor, Record},
};

/// Sends half of `call`, kills the server, starts it again and sends what it does not have.
pub(super) async fn tell(
    data: &Path,
    call: &Bytes,
    descriptor: Descriptor,
    steps: &mut Steps,
) -> Result<Record, CliError> {
    let server = Process::start(data).await?;
    let callers = Callers::at(data).await?;
    let begin = BeginUploadRequest {
        tenant_id: DEV_TENANT.to_owned(),
        descriptor: Some(descriptor),
        ..BeginUploadRequest::default()
    };
    let mut upload = callers.uploader.begin_resumable(begin).await?;
    upload.write(call.slice(..call.len() / 2)).await?;
    upload.flush().await?;
    let (id, promised) = (upload.upload_id().to_owned(), upload.durable());
    drop(upload);
    server.kill()?;
    let detail = format!("{} were durable", terminal::bytes(promised));
    steps.done("half of a second call is sent, and the server killed", &detail)?;

    // The new server listens elsewhere, so a new client goes on: as one would in another process.
    let server = Process::start(data).await?;
    let callers = Callers::at(data).await?;
    let mut upload = callers.uploader.resume_upload(DEV_TENANT, &id).await?;
    let from = upload.durable();
    must(from >= promised, "what was durable is gone")?;
    upload.write(call.clone()).await?;
    let record = upload.commit(None).await?;
    must(
        read(&callers.reader, &record, 0, 0).await? == *call,
        "the second call came back changed",
    )?;
    let detail = format!("from byte {from}");
    steps.done("a new server goes on with it: equal, byte for byte", &detail)?;
    drop((upload, callers));
    server.stop().await?;
    Ok(record)
}
