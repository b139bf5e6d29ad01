//! A call is forgotten: keys are rotated, the call is erased, and a sweep makes even old copies of everything useless.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{
    steps::{Steps, must},
    story::{Callers, read},
};
use crate::{
    app::{DEV_TENANT, Instance, Mode},
    cli::{CliError, terminal},
    client::{Client, ClientFile, Code},
    config::Config,
    evidence::{
        keys::{KeySet, KeyUse, PublishedKey},
        verify::verify,
    },
    proto::v1::{
        CertificateStage, Erasure, ErasureGround, ErasureState, ErasureTarget, GetCertificateRequest,
        KeyOperationState, Record, RecordIds, RequestErasureRequest, RotateTenantKeyRequest, RunSweepRequest,
        SigningKeyUse, SweepState, erasure_target::Target,
    },
};

/// Tells it over a vault that nobody serves, whose copies go to `place`. The call that is erased is `record`.
pub(super) async fn tell(
    config: &Config,
    place: &Path,
    record: &Record,
    call: &Bytes,
    steps: &mut Steps,
) -> Result<(), CliError> {
    let old = place.join("copies");
    copy(&config.data, &old.join("data"))?;
    steps.done("bucket, index and data directory are copied", "")?;

    let server = Instance::start(config, Mode::Dev).await?;
    let file = ClientFile::load(&config.data.join("client.toml"))?;
    rotate(&Client::connect(&file.role("key-admin")?).await?, steps).await?;
    let compliance = Client::connect(&file.role("compliance")?).await?;
    let erasure = erase(&compliance, record).await?;
    let callers = Callers::at(&config.data).await?;
    let answer = callers
        .reader
        .read_recording(DEV_TENANT, &record.record_id, 0, 0)
        .await;
    let code = answer.err().and_then(|error| error.code());
    must(code == Some(Code::NotFound), "what was erased could be read")?;
    steps.done("a call is erased: NOT_FOUND, its key is gone", "EFFECTIVE")?;

    let before = old_copies_open(config, &old, "before", record, call).await?;
    must(
        before,
        "the old copies do not open, so that what follows proves nothing",
    )?;
    steps.done("the copies, with the keys of now, still open it", "")?;

    let begun = compliance.run_sweep(RunSweepRequest::default()).await?;
    let swept = compliance.sweep_ended(begun, |_| ()).await?;
    must(swept.state() == SweepState::Succeeded, "the sweep failed")?;
    let now = finished(&compliance, &erasure).await?;
    must(now.state() == ErasureState::Final, "the erasure is not final")?;
    let detail = format!("root epoch {}", swept.epoch);
    steps.done("a sweep destroys what the copies could be opened with", &detail)?;

    let after = old_copies_open(config, &old, "after", record, call).await?;
    must(!after, "the old copies still open what was erased")?;
    steps.done("the copies, with the keys of now, open nothing", "FINAL")?;

    let auditor = Client::connect(&file.role("auditor")?).await?;
    let proven = certify(&auditor, &erasure).await?;
    steps.done("its certificate holds: checked offline, keys published", &proven)?;
    drop((callers, compliance, auditor));
    server.stop().await?;
    Ok(())
}

async fn rotate(key_admin: &Client, steps: &mut Steps) -> Result<(), CliError> {
    let request = RotateTenantKeyRequest {
        tenant_id: DEV_TENANT.to_owned(),
        ..RotateTenantKeyRequest::default()
    };
    let begun = key_admin.rotate_tenant_key(request).await?;
    let done = key_admin.key_operation_ended(begun, |_| ()).await?;
    must(
        done.state() == KeyOperationState::Succeeded,
        "the rotation failed",
    )?;
    let detail = format!(
        "version {}, {} pages, no record touched",
        done.result, done.pages_total
    );
    steps.done("the tenant's key is rotated", &detail)
}

async fn erase(compliance: &Client, record: &Record) -> Result<Erasure, CliError> {
    let request = RequestErasureRequest {
        tenant_id: DEV_TENANT.to_owned(),
        target: Some(ErasureTarget {
            target: Some(Target::Records(RecordIds {
                record_ids: vec![record.record_id.clone()],
            })),
        }),
        ground: ErasureGround::A17.into(),
        reference: "DEMO-1".to_owned(),
        grace: Some(prost_types::Duration::default()),
        ..RequestErasureRequest::default()
    };
    let erasure = compliance.request_erasure(request).await?;
    must(
        erasure.state() == ErasureState::Effective,
        "the erasure is not effective when it returns",
    )?;
    Ok(erasure)
}

/// An erasure whose objects are deleted.
async fn finished(compliance: &Client, erasure: &Erasure) -> Result<Erasure, CliError> {
    loop {
        let now = compliance.get_erasure(DEV_TENANT, &erasure.erasure_id).await?;
        match now.erasure {
            Some(erasure) if now.pending_deletions.is_empty() => return Ok(erasure),
            _ => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}

/// Whether somebody who has the old copies and a copy of the root as it is now reads the call. Who has both starts a vault.
async fn old_copies_open(
    config: &Config,
    old: &Path,
    name: &str,
    record: &Record,
    call: &Bytes,
) -> Result<bool, CliError> {
    let data: PathBuf = old.join(name);
    copy(&old.join("data"), &data)?;
    let theirs = Config::dev(&data, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let (from, to) = (root_of(config)?, root_of(&theirs)?);
    copy(&from, &to)?;
    // The anchor would tell that the copies are old: whoever wants to read them leaves it out.
    fs::remove_file(to.join("anchor"))?;
    let Ok(server) = Instance::start(&theirs, Mode::Dev).await else {
        return Ok(false);
    };
    let callers = Callers::at(&theirs.data).await?;
    let opened = read(&callers.reader, record, 0, 0)
        .await
        .is_ok_and(|read| read == *call);
    drop(callers);
    server.stop().await?;
    Ok(opened)
}

fn root_of(config: &Config) -> Result<PathBuf, CliError> {
    let file = config.root.file.as_ref().map(|file| file.dir.clone());
    file.ok_or_else(|| CliError::failed("the demo's root is a directory"))
}

async fn certify(auditor: &Client, erasure: &Erasure) -> Result<String, CliError> {
    let published = auditor.list_signing_keys().await?;
    let keys = published.iter().filter_map(|key| {
        let key_use = match key.r#use() {
            SigningKeyUse::LogCheckpoint => KeyUse::LogCheckpoint,
            SigningKeyUse::Certificate => KeyUse::Certificate,
            SigningKeyUse::Unspecified => return None,
        };
        let public_key = key.public_key[..].try_into().ok()?;
        Some(PublishedKey { key_use, public_key })
    });
    let request = GetCertificateRequest {
        tenant_id: DEV_TENANT.to_owned(),
        erasure_id: erasure.erasure_id.clone(),
        stage: CertificateStage::Final.into(),
    };
    let answer = auditor.get_certificate(request).await?;
    let proven = verify(&answer.certificate, &KeySet::new(keys.collect()));
    must(proven.is_ok(), "the certificate does not verify")?;
    Ok(terminal::bytes(answer.certificate.len() as u64))
}

/// Copies a directory and what is in it, modes included.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
