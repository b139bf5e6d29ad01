//! The document of a certificate, from what the logs say and how things stand.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    domain::ids::{ErasureId, RecordId, TenantId},
    evidence::{
        certificate::{
            Blob, Certificate, Elsewhere, Epoch, Erased, FORMAT, Identity, Inclusion, Line, Listed, Method,
            Objects, Path, Stage, Target, Tool, VERSION, Verification,
        },
        story::Story,
        verify::{Refused, agrees, ascending, or_none, page_text, record_text, time},
        wording,
    },
    index::{Key, Range},
    proto::storage::{
        EpochRow, ErasureRow, ErasureTarget, ShreddedRecord, StateLeaf, TenantKeyRow, TombstoneRow,
        state_leaf::Body,
    },
};

use super::{
    super::super::{Error, Kind, Vault},
    blocking, build_sha256, disagrees,
    search::{Found, Logs},
};

/// Within this time every deadline that is known is met, microseconds: 30 days.
const DEADLINE: i64 = 30 * 86_400_000_000;
/// Rows read at once.
const BATCH: usize = 128;

/// What became of the records of a set.
#[derive(Debug, Default)]
struct Covered {
    set: BTreeSet<RecordId>,
    /// When records of it were shredded, by this erasure or another.
    times: BTreeSet<i64>,
    /// When the oldest of their pages was begun.
    first_page: Option<i64>,
    elsewhere: Vec<Elsewhere>,
}

/// Every way up from the erased data, and where it ends. Empty before FINAL.
#[derive(Debug, Default)]
struct Ways {
    keys: BTreeMap<u64, TenantKeyRow>,
    epochs: BTreeMap<u64, EpochRow>,
    answers: BTreeMap<u64, &'static str>,
    /// Kinds of the providers of epochs that live, before one has to be destroyed.
    living: BTreeSet<String>,
}

impl Vault {
    /// The document of a stage that the rows say is reached.
    pub(super) async fn certify(
        &self,
        tenant: &TenantId,
        erasure: &ErasureId,
        stage: Stage,
        row: &ErasureRow,
    ) -> Result<Certificate, Error> {
        let logs = Logs::open(self).await?;
        let covered = self.covered(tenant, erasure, row).await?;
        let mut found = own_leaves(&logs, tenant, erasure, stage, (row, &covered)).await?;
        let story = tell(&found, tenant, erasure)?;
        let ways = match stage {
            Stage::Effective => Ways {
                living: self.providers_of_living_epochs().await?,
                ..Ways::default()
            },
            Stage::Final => self.ways(tenant, row, &story, &found, &covered).await?,
        };
        if stage == Stage::Final {
            found.extend(leaves_of(&logs, tenant, &ways, &story.keys_destroyed).await?);
        }
        let story = tell(&found, tenant, erasure)?;
        let objects = self.objects_of(tenant, &story).await?;
        let build = blocking(build_sha256).await?;
        let certificate = self.document(
            tenant,
            erasure,
            stage,
            (&story, &ways, &covered),
            (objects, build),
        )?;
        agrees(&certificate, &story).map_err(disagrees)?;
        Ok(Certificate {
            inclusion: logs.cite(&found).await?,
            ..certificate
        })
    }

    /// What tombstones tell of the records of an erasure's set.
    async fn covered(
        &self,
        tenant: &TenantId,
        erasure: &ErasureId,
        row: &ErasureRow,
    ) -> Result<Covered, Error> {
        if row.target() == ErasureTarget::Tenant {
            return Ok(Covered::default());
        }
        let mut covered = Covered {
            set: self.read_set(row).await?,
            ..Covered::default()
        };
        let ids: Vec<RecordId> = covered.set.iter().copied().collect();
        for some in ids.chunks(BATCH) {
            let keys: Vec<_> = some
                .iter()
                .map(|id| Key::Tombstone(tenant.clone(), *id))
                .collect();
            let values = self.index.get_many(&keys).await?;
            for ((id, key), value) in some.iter().zip(&keys).zip(values) {
                let Some(value) = value else { continue };
                let tombstone: TombstoneRow = self.rows.open(key, &value)?;
                covered.times.insert(tombstone.shredded_micros);
                let page = tombstone.record.as_ref().map(|record| minted(&record.page_id));
                covered.first_page = covered.first_page.into_iter().chain(page).min();
                if tombstone.erasure_id[..] != erasure.as_bytes()[..] {
                    let other = ErasureId::from_slice(&tombstone.erasure_id);
                    let other = other.map_err(|_| Error::corrupt("index row"))?;
                    covered.elsewhere.push(Elsewhere {
                        record: id.to_string(),
                        erasure: other.to_string(),
                    });
                }
            }
        }
        Ok(covered)
    }

    /// Every key version that could have opened a page of the erased records while their slots were in it, and every epoch that
    /// could have opened those: what the sweep says, and what the times of all keys say, whichever is more.
    ///
    /// # Errors
    /// [`Kind::WrongState`] (`PATHS_OPEN`) if one of them is not destroyed.
    async fn ways(
        &self,
        tenant: &TenantId,
        row: &ErasureRow,
        story: &Story,
        found: &[Found],
        covered: &Covered,
    ) -> Result<Ways, Error> {
        let of_shredded = story.shredded.iter().map(|record| minted(&record.page_id));
        let first_page = of_shredded.chain(covered.first_page).min();
        let last_shred = found
            .iter()
            .filter(|found| matches!(found.leaf.body, Some(Body::RecordsShredded(_))))
            .map(|found| found.leaf.time_micros)
            .chain(covered.times.last().copied())
            .max();
        let said = |said: &[u64], swept: &BTreeSet<u64>, number: u64| {
            said.contains(&number) || swept.contains(&number)
        };
        let of_tenant = story
            .tenant
            .as_ref()
            .map(|tenant| &tenant.key_versions[..])
            .unwrap_or_default();
        let mut ways = Ways::default();
        for at in self.all_rows(Range::TenantKeys(tenant.clone())).await? {
            let Key::TenantKey(_, version) = at.key else {
                continue;
            };
            let key: TenantKeyRow = self.rows.open(&at.key, &at.value)?;
            let by_time = first_page.zip(last_shred).is_some_and(|(first, last)| {
                key.created_micros < last && (key.retired_micros == 0 || key.retired_micros >= first)
            });
            if by_time || of_tenant.contains(&version) || said(&row.key_versions, &story.because.0, version) {
                if key.destroyed_micros == 0 {
                    return Err(open_way().with("key_version", version));
                }
                ways.keys.insert(version, key);
            }
        }
        for at in self.all_rows(Range::Epochs).await? {
            let epoch: EpochRow = self.rows.open(&at.key, &at.value)?;
            let by_time = ways.keys.values().any(|key| could_open(&epoch, key));
            if by_time || said(&row.epochs, &story.because.1, epoch.epoch) {
                if epoch.destroyed_micros == 0 {
                    return Err(open_way().with("epoch", epoch.epoch));
                }
                ways.answers
                    .insert(epoch.epoch, self.answer_of_provider(&epoch).await?);
                ways.epochs.insert(epoch.epoch, epoch);
            }
        }
        Ok(ways)
    }

    fn document(
        &self,
        tenant: &TenantId,
        erasure: &ErasureId,
        stage: Stage,
        (story, ways, covered): (&Story, &Ways, &Covered),
        (objects, build): (Objects, &str),
    ) -> Result<Certificate, Error> {
        let told = || disagrees(Refused::Leaves("the log does not tell the erasure whole"));
        let (requested_at, actor, requested) = story.requested.as_ref().ok_or_else(told)?;
        let (effective, _) = story.effective.ok_or_else(told)?;
        let (content, traces) = match stage {
            Stage::Effective => (effective, effective),
            Stage::Final => story.content_final.zip(story.traces_final).ok_or_else(told)?,
        };
        let providers: BTreeSet<String> = match stage {
            Stage::Effective => ways.living.clone(),
            Stage::Final => ways.epochs.values().map(|epoch| epoch.provider.clone()).collect(),
        };
        let providers: Vec<_> = providers.into_iter().collect();
        let dead = match stage {
            Stage::Effective => requested_at.saturating_add(DEADLINE),
            Stage::Final => content,
        };
        let line = |since, meaning: &str| Line {
            stage,
            since: time(since),
            meaning: meaning.to_owned(),
        };
        let residual = wording::residual_copies(
            stage,
            &time(dead),
            !objects.pending.0.is_empty(),
            self.recovery.is_configured(),
            &providers,
        );
        Ok(Certificate {
            format: FORMAT.to_owned(),
            identity: Identity {
                id: format!("{erasure}-{}", stage.name().to_lowercase()),
                version: VERSION,
                stage,
                issued_at: self.clock.now().to_string(),
                vault: self.realm.vault.to_string(),
                region: self.realm.region.to_string(),
                tenant: tenant.to_string(),
                erasure: erasure.to_string(),
                reference: or_none(&requested.reference),
                ground: wording::ground(requested.ground).ok_or_else(told)?.to_owned(),
                requested_by: actor.clone(),
                approvers: requested.approvers.iter().cloned().collect(),
                requested_at: time(*requested_at),
                due_at: time(requested.due_micros),
            },
            target: self.target(story, covered).map_err(disagrees)?,
            method: method(story, ways),
            tool: Tool {
                name: env!("CARGO_PKG_NAME").to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                build_sha256: build.to_owned(),
            },
            verification: Verification {
                content: line(content, wording::content(stage)),
                search_traces: line(traces, wording::search_traces(stage)),
                pages: match stage {
                    Stage::Effective => Listed::default(),
                    Stage::Final => pages(story).map_err(disagrees)?,
                },
                paths: paths(ways).map_err(disagrees)?,
                epochs: ends(story, ways),
                objects,
                errors: Listed::default(),
            },
            residual_copies: residual,
            proves: wording::proves(stage),
            inclusion: Inclusion::default(),
        })
    }

    fn target(&self, story: &Story, covered: &Covered) -> Result<Target, Refused> {
        let unknown = Refused::Leaves("a leaf says what this release does not know");
        let requested = story.requested.as_ref().map(|(_, _, requested)| requested);
        let requested = requested.ok_or_else(|| unknown.clone())?;
        let mut by_object = BTreeMap::<&str, Vec<&ShreddedRecord>>::new();
        for record in &story.shredded {
            by_object.entry(&record.object_key).or_default().push(record);
        }
        let mut blobs = Vec::with_capacity(by_object.len());
        for (object, mut records) in by_object {
            records.sort_by_key(|record| record.entry_index);
            blobs.push(self.blob(object, &records)?);
        }
        let of_tenant = story
            .tenant
            .as_ref()
            .map(|tenant| ascending(&tenant.key_versions));
        Ok(Target {
            asked_for: wording::asked_for(requested.target).ok_or(unknown)?.to_owned(),
            data_class: wording::DATA_CLASS.to_owned(),
            encrypted_before_stored: wording::ENCRYPTED_BEFORE_STORED.to_owned(),
            set_sha256: or_none(&hex::encode(&requested.set_sha256)),
            record_count: story.shredded.len() as u64,
            blobs: Listed(blobs),
            derived_since: derived_since(story, covered)?,
            elsewhere: covered.elsewhere.iter().cloned().collect(),
            tenant_keys: Listed(of_tenant.unwrap_or_default()),
        })
    }

    fn blob(&self, object: &str, records: &[&ShreddedRecord]) -> Result<Blob, Refused> {
        let erased = records.iter().map(|record| {
            Ok(Erased {
                record: record_text(&record.record_id)?,
                kind: wording::kind(record.kind)
                    .ok_or(Refused::Leaves("a leaf says what this release does not know"))?
                    .to_owned(),
                entry: record.entry_index,
                entries: record.entry_count,
                bytes: record.plaintext_length,
                page: page_text(&record.page_id)?,
                slot: record.slot,
            })
        });
        let (version, footer) = match records {
            [first, ..] => (&first.object_version[..], &first.footer_sha256[..]),
            [] => ("", &[][..]),
        };
        Ok(Blob {
            store: self.store.kind().to_owned(),
            region: self.realm.region.to_string(),
            object: object.to_owned(),
            version_id: or_none(version),
            footer_sha256: hex::encode(footer),
            bytes: records.iter().map(|record| record.plaintext_length).sum(),
            records: erased.collect::<Result<_, Refused>>()?,
        })
    }
}

/// The leaves that tell the erasure itself.
async fn own_leaves(
    logs: &Logs,
    tenant: &TenantId,
    erasure: &ErasureId,
    stage: Stage,
    (row, covered): (&ErasureRow, &Covered),
) -> Result<Vec<Found>, Error> {
    let mut times = covered.times.clone();
    times.extend([row.created_micros, row.effective_micros]);
    if stage == Stage::Final {
        times.extend([row.content_final_micros, row.traces_final_micros]);
    }
    let wants = |leaf: &StateLeaf| {
        let id = match leaf.body.as_ref() {
            Some(Body::ErasureRequested(body)) => &body.erasure_id,
            Some(Body::RecordsShredded(body)) => &body.erasure_id,
            Some(Body::TenantShredded(body)) => &body.erasure_id,
            Some(Body::ErasureEffective(body)) => &body.erasure_id,
            Some(Body::ErasureFinal(body)) if stage == Stage::Final => &body.erasure_id,
            _ => return false,
        };
        leaf.tenant_id == tenant.as_str() && id[..] == erasure.as_bytes()[..]
    };
    let enough = |found: &[Found]| {
        tell(found, tenant, erasure).is_ok_and(|story| {
            let shredded = story.tenant.is_some()
                || story
                    .effective
                    .is_some_and(|(_, records)| story.shredded.len() as u64 == records);
            let is_final = story.content_final.is_some() && story.traces_final.is_some();
            story.requested.is_some() && shredded && (is_final || stage == Stage::Effective)
        })
    };
    logs.find(times, wants, enough).await
}

/// The leaves that tell of the keys on the ways up.
async fn leaves_of(
    logs: &Logs,
    tenant: &TenantId,
    ways: &Ways,
    told: &BTreeSet<u64>,
) -> Result<Vec<Found>, Error> {
    let keys = ways
        .keys
        .values()
        .flat_map(|key| [key.created_micros, key.destroyed_micros]);
    let epochs = ways.epochs.values();
    let epochs = epochs.flat_map(|epoch| [epoch.destroying_micros, epoch.destroyed_micros]);
    let of_tenant = |leaf: &StateLeaf, version: Option<u64>| {
        leaf.tenant_id == tenant.as_str() && version.is_some_and(|version| ways.keys.contains_key(&version))
    };
    let wants = |leaf: &StateLeaf| match leaf.body.as_ref() {
        Some(Body::TenantCreated(body)) => of_tenant(leaf, body.key.as_ref().map(|key| key.version)),
        Some(Body::TenantKeyRotated(body)) => of_tenant(leaf, body.key.as_ref().map(|key| key.version)),
        Some(Body::TenantKeyDestroyed(body)) => of_tenant(leaf, Some(body.version)),
        Some(Body::RootEpochDestroying(body)) => ways.epochs.contains_key(&body.epoch),
        Some(Body::RootEpochDestroyed(body)) => {
            body.scheduled_micros == 0 && ways.epochs.contains_key(&body.epoch)
        }
        _ => false,
    };
    let enough = |found: &[Found]| {
        let leaves = found.iter().map(|found| &found.leaf);
        Story::read(leaves, tenant.as_str(), &[]).is_ok_and(|story| {
            let of_keys = |version| {
                let destroyed = story.keys_destroyed.contains(version) || told.contains(version);
                story.keys.contains_key(version) && destroyed
            };
            let of_epochs = |epoch| story.destroying.contains(epoch) && story.destroyed.contains_key(epoch);
            ways.keys.keys().all(of_keys) && ways.epochs.keys().all(of_epochs)
        })
    };
    logs.find(keys.chain(epochs), wants, enough).await
}

fn tell(found: &[Found], tenant: &TenantId, erasure: &ErasureId) -> Result<Story, Error> {
    let leaves = found.iter().map(|found| &found.leaf);
    Story::read(leaves, tenant.as_str(), erasure.as_bytes()).map_err(disagrees)
}

/// Whether an epoch ever sealed a state of the region page that a key's slot is of, with the slot in it.
fn could_open(epoch: &EpochRow, key: &TenantKeyRow) -> bool {
    let page = key.key.as_ref().map(|key| minted(&key.region_page_id));
    epoch.created_micros < key.destroyed_micros
        && (epoch.retired_micros == 0 || page.is_none_or(|page| epoch.retired_micros >= page))
}

/// When an id was minted: the milliseconds of a UUIDv7, in microseconds.
fn minted(id: &[u8]) -> i64 {
    let millis = id
        .iter()
        .take(6)
        .fold(0_i64, |millis, byte| millis << 8 | i64::from(*byte));
    millis.saturating_mul(1_000)
}

fn method(story: &Story, ways: &Ways) -> Method {
    let of_tenant = story
        .tenant
        .as_ref()
        .map(|tenant| ascending(&tenant.key_versions));
    let versions = of_tenant.iter().flatten().chain(ways.keys.keys()).copied();
    let versions: BTreeSet<_> = versions.collect();
    Method {
        technique: wording::TECHNIQUE.to_owned(),
        reaches: wording::REACHES.to_owned(),
        algorithm: wording::ALGORITHM.to_owned(),
        strength_bits: wording::STRENGTH_BITS,
        slots_punctured: of_tenant.map_or(story.shredded.len(), |versions| versions.len()) as u64,
        tenant_key_versions_destroyed: versions.into_iter().collect(),
        root_epochs_destroyed: ways.epochs.keys().copied().collect(),
        rng: wording::RNG.to_owned(),
        module: wording::MODULE.to_owned(),
        validation: wording::VALIDATION.to_owned(),
        zeroisation: wording::ZEROISATION.to_owned(),
        escrow: wording::ESCROW.to_owned(),
    }
}

/// Erased records that are not of the set.
fn derived_since(story: &Story, covered: &Covered) -> Result<Listed<String>, Refused> {
    let mut since = BTreeSet::new();
    for record in &story.shredded {
        let id = RecordId::from_slice(&record.record_id);
        let id = id.map_err(|_| Refused::Leaves("a leaf has a malformed id"))?;
        if !covered.set.contains(&id) {
            since.insert(id.to_string());
        }
    }
    Ok(since.into_iter().collect())
}

fn pages(story: &Story) -> Result<Listed<String>, Refused> {
    let pages = story.shredded.iter().map(|record| page_text(&record.page_id));
    let pages: BTreeSet<_> = pages.collect::<Result<_, _>>()?;
    Ok(pages.into_iter().collect())
}

fn paths(ways: &Ways) -> Result<Listed<Path>, Refused> {
    let path = |(version, row): (&u64, &TenantKeyRow)| {
        let key = row
            .key
            .as_ref()
            .ok_or(Refused::Leaves("a key version was never wrapped"))?;
        let by_time = ways.epochs.values().filter(|epoch| could_open(epoch, row));
        let mut epochs: Vec<_> = by_time.map(|epoch| epoch.epoch).collect();
        if epochs.is_empty() {
            epochs = ways.epochs.keys().copied().collect();
        }
        let none = Refused::Leaves("no root epoch is destroyed");
        Ok(Path {
            key_version: *version,
            region_page: page_text(&key.region_page_id)?,
            region_slot: key.slot,
            first_epoch: *epochs.first().ok_or_else(|| none.clone())?,
            last_epoch: *epochs.last().ok_or(none)?,
        })
    };
    ways.keys.iter().map(path).collect()
}

fn ends(story: &Story, ways: &Ways) -> Listed<Epoch> {
    let end = |(epoch, row): (&u64, &EpochRow)| Epoch {
        epoch: *epoch,
        provider: row.provider.clone(),
        destroyed_at: time(story.destroyed.get(epoch).copied().unwrap_or_default()),
        answer: ways.answers.get(epoch).copied().unwrap_or_default().to_owned(),
    };
    ways.epochs.iter().map(end).collect()
}

fn open_way() -> Error {
    Error::new(
        Kind::WrongState,
        "PATHS_OPEN",
        "a key that older copies could be opened with is not destroyed; run a sweep, and ask again when it has ended",
    )
}
