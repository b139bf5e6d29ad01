//! Records are shredded: their slots are punctured in the current state of their pages, and their rows are gone, in the same
//! transaction as the leaf that says so.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use crate::{
    domain::{
        clock::Timestamp,
        erasure::{Claim, ErasureState, Event, Obstacle, Situation, Verdict, verdict},
        ids::{PageId, RecordId, RetentionClassId, TenantId},
        limits,
        record::Descriptor,
    },
    index::{Change, Expect, IndexError, Key, Range, Row, Scan, Scope, key::Number},
    keys::store::StoredPage,
    ledger::{
        leaf,
        outbox::{LedgerError, Until},
    },
    proto::storage::{
        ErasureEffective, ErasureRow, PageRow, RecordsShredded, RetentionClass, ShreddedRecord,
        TenantPageStates, TombstoneRow, state_leaf::Body,
    },
};

use super::{
    super::{
        Error, Vault, apply,
        blinding::{self, FoundBy},
        record::Located,
        rotation::write_states,
    },
    case::Case,
    purge::wanted,
    set::Set,
};

/// Records looked at in one go.
const BATCH: usize = 256;
/// Rows of a transaction that are left to leaf and case.
const SPARE: usize = 8;
/// Bytes of a leaf that are left to its other fields.
const LEAF_SPARE: usize = 2 << 10;
/// How often something may change while it is about to be shredded.
const RACES: usize = 32;
/// How long an obstacle whose end nobody knows is left alone, an hour.
const LOOK_AGAIN_MICROS: i64 = 3_600 * 1_000_000;
const DAY_MICROS: i64 = 24 * 3_600 * 1_000_000;

/// A record that is to be shredded now, with every row that leads to it.
struct Doomed {
    located: Located,
    /// Whom it was with; `None` if that does not open.
    descriptor: Option<Descriptor>,
    found_by: Vec<Key>,
    numbers: BTreeSet<Number>,
    /// What must hold for these to be all.
    expect: Vec<Expect>,
    /// Whether more may be found when it is shredded.
    look_after: bool,
    /// Until when the request id that stored it stands for it; 0 if it does no more.
    request_expires_micros: i64,
}

/// What became of a run over a set.
#[derive(Debug, Default)]
struct Outcome {
    /// Records that wait, what for, and when the first of them may be looked at again.
    waiting: u64,
    obstacle: Option<Obstacle>,
    look_again: Option<Timestamp>,
}

impl Vault {
    /// Shreds what may be shredded of a case's set, and of what was derived from it since. The caller holds the tenant's gate
    /// of erasures.
    pub(super) async fn shred_set(&self, case: Case) -> Result<(), Error> {
        let set = self.read_set(&case.row).await?;
        let mut outcome = Outcome::default();
        self.shred_all(&case, &set, &mut outcome).await?;
        // Also what an earlier run has shredded: it may have ended between a record and what was derived from that.
        let mut seen = set;
        if case.row.shredded > 0 {
            let of_case = |id, row: TombstoneRow| {
                if row.erasure_id[..] == case.id.as_bytes()[..] {
                    seen.insert(id);
                }
            };
            self.tombstones(&case.tenant, of_case).await?;
        }
        let mut sources = seen.clone();
        loop {
            // Nothing can be derived from a record that is gone: one look is enough.
            let derived = self.derived_from(&case.tenant, &sources).await?;
            let derived: Set = derived.difference(&seen).copied().collect();
            if derived.is_empty() {
                break;
            }
            self.cut_off_some(&case, &derived).await?;
            self.shred_all(&case, &derived, &mut outcome).await?;
            seen.extend(&derived);
            sources = derived;
        }
        if outcome.waiting == 0 {
            self.is_effective(&case).await
        } else {
            self.goes_on_waiting(&case, &outcome).await
        }
    }

    async fn shred_all(&self, case: &Case, set: &Set, outcome: &mut Outcome) -> Result<(), Error> {
        let ids: Vec<RecordId> = set.iter().copied().collect();
        let mut classes = BTreeMap::new();
        for some in ids.chunks(BATCH) {
            let doomed = self.doomed(case, some, &mut classes, outcome).await?;
            self.shred_some(case, doomed).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Those of some records that are there and that nothing keeps.
    async fn doomed(
        &self,
        case: &Case,
        ids: &[RecordId],
        classes: &mut BTreeMap<RetentionClassId, u32>,
        outcome: &mut Outcome,
    ) -> Result<Vec<Doomed>, Error> {
        let keys: Vec<Key> = ids
            .iter()
            .map(|id| Key::Record(case.tenant.clone(), *id))
            .collect();
        let values = self.index.get_many(&keys).await?;
        let mut doomed = Vec::new();
        for (id, value) in ids.iter().zip(values) {
            let Some(value) = value else { continue };
            let located = self.parse_row(&case.tenant, id, value)?;
            let descriptor = match self.open_record(&located).await {
                Ok((record, _)) => Some(record.descriptor),
                // Damage is no reason to keep it.
                Err(error) if error.kind == super::super::Kind::Corrupt => {
                    tracing::warn!(record = %id, %error, "a record that cannot be opened is shredded");
                    None
                }
                Err(error) => return Err(error),
            };
            let keep_until = match &descriptor {
                Some(descriptor) => self.keep_until(case, &located, descriptor, classes).await?,
                None => None,
            };
            match verdict(&situation(case, self.clock.now(), keep_until)?) {
                Verdict::Shred => doomed.push(self.doom(located, descriptor).await?),
                Verdict::Wait(obstacle) => outcome.waits(obstacle, keep_until, self.clock.now()),
                Verdict::Keep => {}
            }
        }
        let located = doomed.iter().map(|doomed| &doomed.located);
        let requests = self.open_requests(&case.tenant, located).await?;
        for doomed in &mut doomed {
            let expires = requests.get(&doomed.located.id);
            doomed.request_expires_micros = expires.copied().unwrap_or_default();
        }
        Ok(doomed)
    }

    /// Until when the law wants a record kept, as its class has it.
    pub(super) async fn keep_until(
        &self,
        case: &Case,
        located: &Located,
        descriptor: &Descriptor,
        classes: &mut BTreeMap<RetentionClassId, u32>,
    ) -> Result<Option<Timestamp>, Error> {
        let id = &descriptor.retention_class;
        let days = match classes.get(id) {
            Some(days) => *days,
            None => {
                let days = self.minimum_days(&case.tenant, id).await?;
                classes.insert(id.clone(), days);
                days
            }
        };
        let created = Timestamp(located.row.created_micros);
        Ok((days > 0).then(|| created.plus_micros(i64::from(days) * DAY_MICROS)))
    }

    /// The minimum of a tenant's retention class; none where there is no such class any more.
    pub(super) async fn minimum_days(&self, tenant: &TenantId, id: &RetentionClassId) -> Result<u32, Error> {
        let key = Key::RetentionClass(tenant.clone(), id.clone());
        let value = self.index.get(&key).await?;
        let class: Option<RetentionClass> = value.map(|value| self.rows.open(&key, &value)).transpose()?;
        Ok(class.map_or(0, |class| class.minimum_days))
    }

    async fn doom(&self, located: Located, descriptor: Option<Descriptor>) -> Result<Doomed, Error> {
        let (tenant, id) = (&located.tenant, &located.id);
        let Some(descriptor) = descriptor else {
            let found_by = self.found_by(tenant, &Set::from([*id])).await?;
            return Ok(Doomed {
                numbers: numbers_in(&found_by),
                found_by,
                expect: Vec::new(),
                look_after: false,
                request_expires_micros: 0,
                descriptor: None,
                located,
            });
        };
        let FoundBy { keys, expect } = self.found_by_terms(tenant, id, &descriptor).await?;
        Ok(Doomed {
            numbers: numbers_in(&keys),
            found_by: keys,
            expect,
            look_after: false,
            request_expires_micros: 0,
            descriptor: Some(descriptor),
            located,
        })
    }

    /// Looks again at what leads to records: identifiers may be blinded again meanwhile.
    async fn look_again(&self, records: &mut [Doomed]) -> Result<(), Error> {
        for doomed in records {
            if let Some(descriptor) = &doomed.descriptor {
                let located = &doomed.located;
                let now = self.found_by_terms(&located.tenant, &located.id, descriptor);
                let FoundBy { keys, expect } = now.await?;
                doomed.numbers = numbers_in(&keys);
                (doomed.found_by, doomed.expect) = (keys, expect);
            }
        }
        Ok(())
    }

    /// Every row of a tenant that one of these records is found by: for records whose descriptors do not tell any more.
    pub(in crate::vault) async fn found_by(
        &self,
        tenant: &TenantId,
        records: &Set,
    ) -> Result<Vec<Key>, Error> {
        let mut found = Vec::new();
        let all_time = (Timestamp(i64::MIN), Timestamp(i64::MAX));
        let tables = [
            Range::ByTime(tenant.clone(), all_time.0, all_time.1),
            Range::Conversations(tenant.clone()),
            Range::Subjects(tenant.clone()),
            Range::Sources(tenant.clone()),
            Range::Externals(tenant.clone()),
        ];
        for range in tables {
            let mut after = None;
            loop {
                let scan = Scan {
                    range: range.clone(),
                    reverse: false,
                    after,
                    limit: 1_000,
                };
                let rows = self.index.scan(&scan).await?;
                let full = rows.len() == scan.limit;
                after = rows.last().map(|row| row.key.clone());
                for row in rows {
                    if self
                        .leads_to(&row)?
                        .is_some_and(|record| records.contains(&record))
                    {
                        found.push(row.key);
                    }
                }
                if !full {
                    break;
                }
            }
        }
        Ok(found)
    }

    fn leads_to(&self, row: &Row) -> Result<Option<RecordId>, Error> {
        Ok(match &row.key {
            Key::ByTime(_, _, record)
            | Key::ByConversation(_, _, _, record)
            | Key::BySubject(_, _, _, record)
            | Key::BySource(_, _, _, record) => Some(*record),
            Key::External(..) => {
                let external: crate::proto::storage::ExternalRow = self.rows.open(&row.key, &row.value)?;
                RecordId::from_slice(&external.record_id).ok()
            }
            _ => None,
        })
    }

    /// Shreds records, a page after the other, in as few transactions as may be.
    async fn shred_some(&self, case: &Case, doomed: Vec<Doomed>) -> Result<(), Error> {
        let mut by_page: BTreeMap<PageId, Vec<Doomed>> = BTreeMap::new();
        for record in doomed {
            let long = self.shorten(record).await?;
            by_page.entry(long.located.page).or_default().push(long);
        }
        let mut run: Vec<(PageId, Vec<Doomed>)> = Vec::new();
        let mut rows = 0;
        for (page, records) in by_page {
            let mut of_page = Vec::new();
            let mut page_rows = 1;
            for record in records {
                let cost = record.rows();
                if rows + page_rows + cost > limits::TRANSACTION_ROWS - SPARE {
                    if !of_page.is_empty() {
                        run.push((page, std::mem::take(&mut of_page)));
                    }
                    self.shred_run(case, std::mem::take(&mut run)).await?;
                    (rows, page_rows) = (0, 1);
                }
                page_rows += cost;
                of_page.push(record);
            }
            if !of_page.is_empty() {
                rows += page_rows;
                run.push((page, of_page));
            }
        }
        self.shred_run(case, run).await
    }

    /// A record that is found by more rows than a transaction has loses them before: they lead to what is cut off already.
    async fn shorten(&self, mut record: Doomed) -> Result<Doomed, Error> {
        let most = limits::TRANSACTION_ROWS / 2;
        while record.rows() > most && !record.found_by.is_empty() {
            // What is deleted now is not looked at again.
            record.descriptor = None;
            let some: Vec<Key> = record
                .found_by
                .split_off(record.found_by.len().saturating_sub(most / 2));
            let numbers = numbers_in(&some);
            record.numbers.retain(|number| !numbers.contains(number));
            let tenant = &record.located.tenant;
            let change = Change {
                put: numbers.iter().map(|number| renumber(tenant, number)).collect(),
                delete: some,
                ..Change::default()
            };
            self.index.commit(change).await?;
        }
        if record.rows() > most {
            // So many people that no transaction can expect that none of them gets a number: what comes is looked for afterwards.
            record.expect.retain(blinding::is_fence);
            record.descriptor = None;
            record.look_after = true;
        }
        Ok(record)
    }

    /// One transaction: pages without the slots, tombstones in place of rows, the leaf.
    async fn shred_run(&self, case: &Case, mut run: Vec<(PageId, Vec<Doomed>)>) -> Result<(), Error> {
        if run.is_empty() {
            return Ok(());
        }
        let tenant = &case.tenant;
        let _gate = self.keys.tenant_gate(tenant).await;
        for _ in 0..RACES {
            let change = self.shredding(case, &run).await?;
            match self.ledger.commit(change, Until::Queued).await {
                // The case or a page changed meanwhile: a rotation stages without the gate.
                Err(LedgerError::Index(IndexError::Expectation(_))) => {
                    for (_, records) in &mut run {
                        self.look_again(records).await?;
                    }
                }
                done => {
                    done?;
                    for (page, records) in &run {
                        self.keys.forget_page(tenant, page);
                        let ids: Vec<RecordId> = records.iter().map(|doomed| doomed.located.id).collect();
                        self.streams.cut(tenant, &ids);
                        self.forget_uploads_of(tenant, Some(&ids)).await;
                        let many = records.iter().filter(|doomed| doomed.look_after);
                        let many: Set = many.map(|doomed| doomed.located.id).collect();
                        if !many.is_empty() {
                            self.forget_found_by(tenant, &many).await?;
                        }
                    }
                    self.erasing.purge.notify_one();
                    return Ok(());
                }
            }
        }
        Err(IndexError::Expectation(0).into())
    }

    async fn shredding(&self, case: &Case, run: &[(PageId, Vec<Doomed>)]) -> Result<Change, Error> {
        let corrupt = || Error::corrupt("key material");
        let (tenant, now) = (&case.tenant, self.clock.now());
        let (owner, _) = self.tenant_row(tenant).await?.ok_or_else(Error::not_found)?;
        let current = self.case(tenant, &case.id).await?.ok_or_else(Error::not_found)?;
        let mut change = Change::default();
        let mut body = RecordsShredded {
            erasure_id: case.id.as_bytes().to_vec().into(),
            ..RecordsShredded::default()
        };
        let mut delete = BTreeSet::new();
        let mut numbers = BTreeSet::new();
        let mut objects = BTreeMap::new();
        for (page, records) in run {
            let key = Key::Page(tenant.clone(), *page);
            let value = self.index.get(&key).await?.ok_or_else(corrupt)?;
            let row: PageRow = self.rows.open(&key, &value)?;
            let stored = apply::page_under(&row, owner.current_key_version).ok_or_else(corrupt)?;
            let slots: Vec<u16> = records.iter().map(|doomed| doomed.located.slot).collect();
            let next: StoredPage = self.keys.puncture_page(tenant, page, &stored, slots).await?;
            body.pages.push(apply::tenant_page_leaf(page, &next));
            change.expect.push(Expect::Equals(key, value));
            for doomed in records {
                let located = &doomed.located;
                let key = Key::Record(tenant.clone(), located.id);
                change
                    .expect
                    .push(Expect::Equals(key.clone(), located.value.clone()));
                for expect in &doomed.expect {
                    // Records share the fence, and people.
                    if !change.expect.contains(expect) {
                        change.expect.push(expect.clone());
                    }
                }
                delete.insert(key);
                delete.extend(doomed.found_by.iter().cloned());
                numbers.extend(&doomed.numbers);
                objects.insert(&located.row.object_key, located);
                body.records.push(shredded_record(doomed));
            }
        }
        change.put = apply::records_shredded(&self.rows, tenant, &body, now).ok_or_else(corrupt)?;
        change
            .put
            .extend(numbers.iter().map(|number| renumber(tenant, number)));
        let objects = objects.into_values();
        change
            .put
            .extend(objects.map(|located| wanted(&self.rows, &case.id, located)));
        change.put.push(super::unswept_row(&self.rows, tenant, &case.id));
        let counted = ErasureRow {
            shredded: current.row.shredded + body.records.len() as u64,
            ..current.row.clone()
        };
        let of_case = current.change(&self.rows, counted);
        change.put.extend(of_case.put);
        change.expect.extend(of_case.expect);
        change.delete = delete.into_iter().collect();
        self.move_into_objects(&mut body).await?;
        let draft = leaf::draft(
            Scope::Tenant(tenant.clone()),
            &case.row.actor,
            now,
            Body::RecordsShredded(body),
        );
        change.leaves.push(draft);
        Ok(change)
    }

    /// Moves page states that do not fit into a leaf into an object.
    async fn move_into_objects(&self, body: &mut RecordsShredded) -> Result<(), Error> {
        if body.encoded_len() <= limits::LEAF_BYTES - LEAF_SPARE {
            return Ok(());
        }
        let states = TenantPageStates {
            pages: body.pages.clone(),
        };
        let pages = u32::try_from(states.pages.len()).unwrap_or(u32::MAX);
        let stored = write_states(self, states.encode_to_vec().into(), pages).await?;
        body.page_states.push(stored);
        for page in &mut body.pages {
            page.sealed_state = Default::default();
        }
        Ok(())
    }

    /// Every record of a case is gone.
    pub(super) async fn is_effective(&self, case: &Case) -> Result<(), Error> {
        let case = self
            .case(&case.tenant, &case.id)
            .await?
            .ok_or_else(Error::not_found)?;
        let Some(next) = case.state()?.after(Event::Shredded) else {
            return Ok(());
        };
        let now = self.clock.now();
        let row = effective(&case.row, next, now);
        let mut change = case.change(&self.rows, row);
        // A set whose records were all gone before has nothing to be swept; it is final with the next sweep all the same.
        change
            .put
            .push(super::unswept_row(&self.rows, &case.tenant, &case.id));
        let body = ErasureEffective {
            erasure_id: case.id.as_bytes().to_vec().into(),
            records: case.row.shredded,
        };
        change.leaves.push(leaf::draft(
            Scope::Tenant(case.tenant.clone()),
            &case.row.actor,
            now,
            Body::ErasureEffective(body),
        ));
        self.ledger.commit(change, Until::Shipped).await?;
        self.erasing.purge.notify_one();
        Ok(())
    }

    async fn goes_on_waiting(&self, case: &Case, outcome: &Outcome) -> Result<(), Error> {
        let case = self
            .case(&case.tenant, &case.id)
            .await?
            .ok_or_else(Error::not_found)?;
        let again = outcome.look_again.unwrap_or_else(|| self.clock.now());
        let row = ErasureRow {
            waiting: outcome.waiting,
            obstacle: outcome.obstacle.map_or("", Obstacle::name).to_owned(),
            check_micros: again.micros(),
            ..case.row.clone()
        };
        self.index.commit(case.change(&self.rows, row)).await?;
        Ok(())
    }
}

impl Doomed {
    /// Rows that its end costs: its own, tombstone and object, those that lead to it, their numbers.
    fn rows(&self) -> usize {
        // An identifier that has no number yet under the next index key may have a row and a number more by then.
        3 + self.found_by.len() + self.numbers.len() + 2 * self.expect.len()
    }
}

impl Outcome {
    fn waits(&mut self, obstacle: Obstacle, until: Option<Timestamp>, now: Timestamp) {
        self.waiting += 1;
        self.obstacle = self.obstacle.max(Some(obstacle));
        let again = until.filter(|until| *until > now);
        let again = again.unwrap_or_else(|| now.plus_micros(LOOK_AGAIN_MICROS));
        self.look_again = Some(self.look_again.map_or(again, |first| first.min(again)));
    }
}

/// Holds and blocks come with the calls that make them; no row of them exists yet.
pub(super) fn situation(
    case: &Case,
    now: Timestamp,
    keep_until: Option<Timestamp>,
) -> Result<Situation, Error> {
    Ok(Situation {
        now,
        claim: Some(Claim {
            ground: case.ground()?,
            approved: case.state()? >= ErasureState::Approved,
            due: Timestamp(case.row.due_micros),
        }),
        held: false,
        keep_until,
        block_until: None,
        expires: None,
    })
}

/// A case whose last key is gone.
pub(super) fn effective(before: &ErasureRow, state: ErasureState, now: Timestamp) -> ErasureRow {
    ErasureRow {
        state: state.number(),
        effective_micros: now.micros(),
        waiting: 0,
        obstacle: String::new(),
        ..before.clone()
    }
}

fn shredded_record(doomed: &Doomed) -> ShreddedRecord {
    let located = &doomed.located;
    let row = &located.row;
    ShreddedRecord {
        record_id: located.id.as_bytes().to_vec().into(),
        kind: located.kind.number(),
        object_key: row.object_key.clone(),
        object_version: row.object_version.clone(),
        footer_sha256: row.footer_sha256.clone(),
        entry_index: row.entry_index,
        entry_count: row.entry_count,
        plaintext_length: row.plaintext_length,
        page_id: row.page_id.clone(),
        slot: row.slot,
        request_mac: row.request_mac.clone(),
        request_expires_micros: doomed.request_expires_micros,
    }
}

pub(super) fn numbers_in(keys: &[Key]) -> BTreeSet<Number> {
    let numbers = keys.iter().filter_map(|key| match key {
        Key::ByConversation(_, number, ..) | Key::BySubject(_, number, ..) => Some(*number),
        _ => None,
    });
    numbers.collect()
}

/// A number that led to what is gone must lead to nothing that stays.
pub(super) fn renumber(tenant: &TenantId, number: &Number) -> Row {
    Row {
        key: Key::Renumber(tenant.clone(), *number),
        value: Vec::new(),
    }
}
