//! Rotates the key of a tenant with as many pages as so many records fill, in sled and a directory, and counts what was written.
//!
//! ```text
//! cargo bench --bench rotation -- [RECORDS] [INDEXED]        default 10,000,000 and 100,000
//! ```
//!
//! A page holds the slots of 4,096 records. The generator makes the tenant's pages as puts make them, one to a retention class
//! with a message in each, and then rows of so many records into the index, so that it has a size. Wall time of the operation,
//! from the call to its end as `GetKeyOperation` tells it, index and log writes with their fsyncs included.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
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
    vault::{Draft, KeyOperation, MessageSpec, OperationState, UploadSettings, Vault, VaultSettings},
};

type Failure = Box<dyn Error + Send + Sync>;

const SLOTS: u64 = 4_096;

fn main() -> Result<(), Failure> {
    let arguments: Vec<u64> = env::args()
        .skip(1)
        .filter_map(|a| a.replace(',', "").parse().ok())
        .collect();
    let (records, indexed) = (
        arguments.first().copied().unwrap_or(10_000_000),
        arguments.get(1).copied().unwrap_or(100_000),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(records, indexed))
}

async fn measure(records: u64, indexed: u64) -> Result<(), Failure> {
    let below = env::var_os("CALLVAULT_BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from);
    let dir = tempfile::Builder::new()
        .prefix("callvault-bench")
        .tempdir_in(below)?;
    let (clock, rng): (Arc<dyn Clock>, Arc<dyn Rng>) = (Arc::new(SystemClock), Arc::new(SystemRng::new()));
    let store = LocalStore::open(&dir.path().join("bucket"), Arc::clone(&clock), Arc::clone(&rng)).await?;
    let store: Arc<dyn BlobStore> = Arc::new(store);
    let sled = SledIndex::open(
        &dir.path().join("index"),
        SledOptions {
            cache_bytes: 256 << 20,
        },
    )?;
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
    let vault = &opened.vault;
    let tenant: TenantId = "bench".parse()?;
    vault
        .create_tenant("bench", &tenant, TenantSettings::default(), None)
        .await?;
    let pages = records.div_ceil(SLOTS);
    fill_pages(vault, &tenant, pages).await?;
    fill_index(&*index, &tenant, &*clock, &*rng, indexed).await?;

    println!("| rotate | pages | seconds | objects written | blobs written |\n|---|---|---|---|---|");
    for _ in 0..3 {
        let before = objects(&*store).await?;
        let start = Instant::now();
        let begun = vault.rotate_tenant_key("bench", &tenant, None).await?;
        let done = ended(vault, &begun).await?;
        let seconds = start.elapsed().as_secs_f64();
        let after = objects(&*store).await?;
        let blobs = |of: &BTreeMap<String, i64>| {
            of.iter()
                .filter(|(name, _)| name.starts_with("blobs/"))
                .map(|(name, at)| (name.clone(), *at))
                .collect::<Vec<_>>()
        };
        let written = after
            .iter()
            .filter(|(name, at)| before.get(*name) != Some(*at))
            .count();
        let rewritten = usize::from(blobs(&before) != blobs(&after));
        println!(
            "| a tenant of {records} records | {} | {seconds:.2} | {written} | {rewritten} |",
            done.total
        );
    }
    let start = Instant::now();
    let begun = vault.rotate_root_epoch("bench", None).await?;
    let done = ended(vault, &begun).await?;
    println!(
        "| the root | {} | {:.2} | | |",
        done.total,
        start.elapsed().as_secs_f64()
    );
    opened.close().await;
    Ok(())
}

async fn ended(vault: &Vault, begun: &KeyOperation) -> Result<KeyOperation, Failure> {
    loop {
        let now = vault.key_operation(&begun.id, |_| true).await?;
        match now.state {
            OperationState::Running => tokio::time::sleep(Duration::from_millis(1)).await,
            OperationState::Succeeded => return Ok(now),
            OperationState::Failed => return Err("the operation failed".into()),
        }
    }
}

async fn objects(store: &dyn BlobStore) -> Result<BTreeMap<String, i64>, Failure> {
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

/// One page a retention class, begun as a put begins it.
async fn fill_pages(vault: &Arc<Vault>, tenant: &TenantId, pages: u64) -> Result<(), Failure> {
    let mut making = tokio::task::JoinSet::new();
    for number in 0..pages {
        let (vault, tenant) = (Arc::clone(vault), tenant.clone());
        making.spawn(async move { fill_page(&vault, &tenant, number).await });
        if making.len() >= 64
            && let Some(made) = making.join_next().await
        {
            made??;
        }
    }
    while let Some(made) = making.join_next().await {
        made??;
    }
    Ok(())
}

async fn fill_page(vault: &Arc<Vault>, tenant: &TenantId, number: u64) -> Result<(), Failure> {
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
        retention_class,
        age_flag: None,
        jurisdictions: vec![],
        external_id: None,
        derived_from: None,
        incomplete: false,
    };
    let message = MessageSpec {
        actor: "bench".to_owned(),
        draft: Draft {
            descriptor,
            has_media_type: true,
            has_retention_class: true,
        },
        request: None,
        body: "a message".into(),
    };
    for put in vault.put_messages(tenant, vec![message]).await? {
        put?;
    }
    Ok(())
}

/// Rows as long as those of records, so that the index has the size of one.
async fn fill_index(
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
    })
}
