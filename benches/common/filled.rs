//! A vault in sled and a directory, filled as benches of keys and erasures want it.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use callvault::{
    blob::{local::LocalStore, store::BlobStore},
    crypto::rng::SystemRng,
    domain::{
        clock::{Clock, Rng, SystemClock, Timestamp},
        ids::{IndexId, RecordId, TenantId},
        purpose::Channel,
        record::Descriptor,
        tenant::{RetentionAction, RetentionClass, TenantSettings},
    },
    index::{
        Change, Index, Key, Row,
        sled::{SledIndex, SledOptions},
    },
    keys::file::FileRoot,
    spool::Directory,
    vault::{Draft, KeyOperation, MessageSpec, Opened, OperationState, UploadSettings, Vault, VaultSettings},
};

use super::Failure;

/// Slots of a page.
pub(crate) const SLOTS: u64 = 4_096;

/// An open vault and what it stands on.
pub(crate) struct Filled {
    _dir: tempfile::TempDir,
    pub(crate) store: Arc<dyn BlobStore>,
    pub(crate) index: Arc<dyn Index>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
    pub(crate) opened: Opened,
}

impl Filled {
    /// A vault below `CALLVAULT_BENCH_DIR`, or else the system's own directory for what is temporary.
    pub(crate) async fn open() -> Result<Self, Failure> {
        let below = env::var_os("CALLVAULT_BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from);
        let dir = tempfile::Builder::new()
            .prefix("callvault-bench")
            .tempdir_in(below)?;
        let (clock, rng): (Arc<dyn Clock>, Arc<dyn Rng>) =
            (Arc::new(SystemClock), Arc::new(SystemRng::new()));
        let store =
            LocalStore::open(&dir.path().join("bucket"), Arc::clone(&clock), Arc::clone(&rng)).await?;
        let store: Arc<dyn BlobStore> = Arc::new(store);
        let options = SledOptions {
            cache_bytes: 256 << 20,
        };
        let sled = SledIndex::open(&dir.path().join("index"), options)?;
        let index: Arc<dyn Index> = Arc::new(sled);
        let opened = Vault::open(
            settings(dir.path(), &*clock, &*rng)?,
            Arc::clone(&store),
            Arc::clone(&index),
            Arc::new(FileRoot::open(&dir.path().join("root"), Arc::clone(&rng))?),
            Arc::clone(&clock),
            Arc::clone(&rng),
        )
        .await?;
        Ok(Self {
            _dir: dir,
            store,
            index,
            clock,
            rng,
            opened,
        })
    }

    pub(crate) fn vault(&self) -> &Arc<Vault> {
        &self.opened.vault
    }
}

/// A tenant without settings.
pub(crate) async fn make_tenant(vault: &Vault, tenant: &TenantId) -> Result<(), Failure> {
    vault
        .create_tenant("bench", tenant, TenantSettings::default(), None)
        .await?;
    Ok(())
}

/// Waits for an operation.
pub(crate) async fn ended(vault: &Vault, begun: &KeyOperation) -> Result<KeyOperation, Failure> {
    loop {
        let now = vault.key_operation(&begun.id, |_| true).await?;
        match now.state {
            OperationState::Running => tokio::time::sleep(Duration::from_millis(1)).await,
            OperationState::Succeeded => return Ok(now),
            OperationState::Failed => return Err("the operation failed".into()),
        }
    }
}

/// Every object but what is overwritten, and when it was written.
pub(crate) async fn objects(store: &dyn BlobStore) -> Result<BTreeMap<String, i64>, Failure> {
    let mut all = BTreeMap::new();
    for below in ["blobs/", "payloads/", "log/"] {
        let mut next = None;
        loop {
            let page = store.list(below, false, next.as_deref(), 1_000).await?;
            all.extend(
                page.objects
                    .into_iter()
                    .map(|o| (o.key.to_string(), o.modified_micros)),
            );
            next = page.next;
            if next.is_none() {
                break;
            }
        }
    }
    Ok(all)
}

/// One page a retention class, begun as a put begins it; `messages` of each in it. Returns the messages' ids, page by page.
pub(crate) async fn fill_pages(
    vault: &Arc<Vault>,
    tenant: &TenantId,
    pages: u64,
    messages: impl Fn(u64) -> usize,
) -> Result<Vec<Vec<RecordId>>, Failure> {
    let mut filled = Vec::new();
    let mut making = tokio::task::JoinSet::new();
    for number in 0..pages {
        let (vault, tenant, many) = (Arc::clone(vault), tenant.clone(), messages(number));
        making.spawn(async move { fill_page(&vault, &tenant, number, many).await });
        if making.len() >= 64
            && let Some(made) = making.join_next().await
        {
            filled.push(made??);
        }
    }
    while let Some(made) = making.join_next().await {
        filled.push(made??);
    }
    Ok(filled)
}

async fn fill_page(
    vault: &Arc<Vault>,
    tenant: &TenantId,
    number: u64,
    messages: usize,
) -> Result<Vec<RecordId>, Failure> {
    let class = RetentionClass {
        id: format!("class-{number}").parse()?,
        minimum_days: 0,
        maximum_days: None,
        action: RetentionAction::Shred,
        jurisdiction: None,
        legal_ground: None,
        effective: Timestamp(0),
        created: Timestamp(0),
    };
    let retention_class = class.id.clone();
    vault.create_retention_class("bench", tenant, class, None).await?;
    let mut ids = Vec::with_capacity(messages);
    let mut left = messages;
    while left > 0 {
        let many = left.min(1_000);
        left -= many;
        let batch = (0..many).map(|_| message(&retention_class));
        let batch = batch.collect::<Result<Vec<_>, _>>()?;
        for put in vault.put_messages(tenant, batch).await? {
            ids.push(put?.id);
        }
    }
    Ok(ids)
}

fn message(retention_class: &callvault::domain::ids::RetentionClassId) -> Result<MessageSpec, Failure> {
    let descriptor = Descriptor {
        conversation_id: "bench".parse()?,
        channel: Channel::Chat,
        direction: None,
        start: Timestamp(1_795_478_400_000_000),
        duration_millis: None,
        parties: vec![],
        media_type: "text/plain".parse()?,
        languages: vec![],
        labels: Default::default(),
        data_categories: Default::default(),
        allowed_purposes: Default::default(),
        legal_basis: None,
        notice_version: None,
        consent_ref: None,
        source: None,
        retention_class: retention_class.clone(),
        age_flag: None,
        jurisdictions: vec![],
        external_id: None,
        derived_from: None,
        incomplete: false,
    };
    Ok(MessageSpec {
        actor: "bench".to_owned(),
        draft: Draft {
            descriptor,
            has_media_type: true,
            has_retention_class: true,
        },
        request: None,
        body: "a message".into(),
    })
}

/// Rows as long as those of records, so that the index has the size of one.
pub(crate) async fn fill_index(
    index: &dyn Index,
    tenant: &TenantId,
    clock: &dyn Clock,
    rng: &dyn Rng,
    records: u64,
) -> Result<(), Failure> {
    let other: TenantId = format!("{tenant}-rows").parse()?;
    let mut left = records;
    while left > 0 {
        let many = left.min(60);
        let mut change = Change::default();
        for _ in 0..many {
            let id = RecordId::mint(clock.now(), rng)?;
            change.put.push(Row {
                key: Key::Record(other.clone(), id),
                value: vec![7; 700],
            });
        }
        index.commit(change).await?;
        left -= many;
    }
    Ok(())
}

fn settings(dir: &Path, clock: &dyn Clock, rng: &dyn Rng) -> Result<VaultSettings, Failure> {
    Ok(VaultSettings {
        region: "local".parse()?,
        country: "MX".to_owned(),
        node: 0,
        memory_budget: 256 << 20,
        tenant_share_percent: 50,
        index_id: IndexId::mint(clock.now(), rng)?,
        take_over: false,
        uploads: UploadSettings::new(Arc::new(Directory::open(&dir.join("spool"))?)),
        recovery: None,
    })
}
