//! Random histories, driven through the vault and the model side by side; every answer is compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::Arc,
    time::Duration,
};

use callvault::{
    domain::{
        erasure::{ErasureState, Ground, Target},
        ids::{ErasureId, OperationId, RecordId, TenantId},
        limits,
        record::{Descriptor, Kind as RecordKind, Query, Record, State, SubjectIdentifier},
    },
    keys::provider::{EpochLabel, RootProvider},
    testing::world::{Engine, Snapshot, World},
    vault::{
        Closing, DescriptorChange, Draft, ErasureSpec, Error, KeyState, Kind, MessageSpec, Name,
        OperationState, Order, PutSpec, TenantChange, UpdateSpec, Vault,
    },
};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use super::{
    kit::*,
    model::{Answer, Model, Outcome, Upload},
    ops::{
        After, Draw, Etag, Fault, Harm, Op, Other, Storm, Which, class_id, external_id, history, purpose,
        request_id, tenant_id,
    },
    sessions::Sessions,
};

/// Every random history agrees with the model, survives what happens to it, and comes back from the bucket alone.
#[test]
fn histories_agree_with_the_model_and_come_back_from_the_bucket() {
    if let Err(panic) = roomy(drive_many) {
        std::panic::resume_unwind(panic);
    }
}

/// Unoptimised futures and strategies of whole histories are large.
fn roomy(work: impl FnOnce() + Send + 'static) -> std::thread::Result<()> {
    let thread = std::thread::Builder::new().stack_size(256 << 20);
    thread.spawn(work).unwrap().join()
}

fn drive_many() {
    let cases = std::env::var("CALLVAULT_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(24);
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let strategy = history();
    let outcome = runner.run(&strategy, |history| {
        let engine = if history.len() % 2 == 0 {
            Engine::Memory
        } else {
            Engine::Sled
        };
        let outcome = roomy(move || run(engine, &history));
        outcome.map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            TestCaseError::fail(text.unwrap_or_default())
        })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

fn run(engine: Engine, history: &[Op]) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut drive = Drive::new(engine).await;
        for (n, op) in history.iter().enumerate() {
            if n % 3 > 0 {
                drive.advance(1_000);
            }
            drive.step(op).await;
        }
        drive.end().await;
    });
}

struct Drive {
    _dir: tempfile::TempDir,
    engine: Engine,
    world: World,
    model: Model,
    uploads: Vec<Upload>,
    sessions: Sessions,
    /// What was asked for, and is final after the next sweep.
    erased: Vec<(TenantId, ErasureId)>,
    snapshot: Option<Snapshot>,
    /// Blobs that failed puts may have left.
    orphans: usize,
    /// Whether the last call was answered by the vault itself.
    answered: bool,
    /// Whether what needs the log may wait for as long as the weather lasts.
    log_is_down: bool,
    /// Whether messages are under way that nobody waits for any more: they may appear at any moment, until the process ends.
    adrift: bool,
}

/// How long a storm lasts by the clock, microseconds.
const MINUTE: i64 = 60_000_000;

/// What a failed put may become after a rebuild.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limbo {
    pub(crate) upload: Upload,
    kind: RecordKind,
    descriptor: Descriptor,
}

impl Limbo {
    pub(crate) fn is_derived_from(&self, any: &std::collections::BTreeSet<RecordId>) -> bool {
        self.descriptor
            .derived_from
            .is_some_and(|source| any.contains(&source))
    }
}

/// How a call is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weather {
    Fair,
    /// The store may fail.
    Faulty,
    /// The log is down, and the caller does not wait.
    Cut,
    /// The store fails before, during and after, and the caller does not wait.
    Storm,
}

impl Drive {
    async fn new(engine: Engine) -> Self {
        let dir = directory();
        let mut world = World::new(dir.path(), engine, 1).unwrap();
        // Long for a disk in memory, short for a call that hangs.
        (world.patience.read, world.patience.call) = (Duration::from_secs(1), Duration::from_secs(1));
        world.open().await.unwrap();
        let model = Model {
            now: now(&world),
            ..Model::default()
        };
        let mut drive = Self {
            _dir: dir,
            engine,
            world,
            model,
            uploads: Vec::new(),
            sessions: Sessions::default(),
            erased: Vec::new(),
            snapshot: None,
            orphans: 0,
            answered: true,
            log_is_down: false,
            adrift: false,
        };
        // Most histories begin with something to work with.
        for class in 0..2 {
            if class == 0 {
                drive.tenant_made(0).await;
            }
            drive
                .step(&Op::CreateClass {
                    tenant: 0,
                    class,
                    minimum: 1,
                    maximum: None,
                    request: None,
                })
                .await;
        }
        drive
    }

    async fn tenant_made(&mut self, n: u8) {
        let id = tenant_id(n);
        let made = self
            .vault()
            .create_tenant(ACTOR, &id, Default::default(), None)
            .await
            .unwrap();
        assert_eq!(self.model.create_tenant(&id, Default::default(), None), Ok(made));
    }

    fn vault(&self) -> &Arc<Vault> {
        self.world.vault()
    }

    fn advance(&mut self, micros: i64) {
        self.model.now = self.world.clock.advance(micros);
    }

    async fn step(&mut self, op: &Op) {
        match op {
            Op::Advance(micros) => self.advance(*micros),
            Op::Restart => self.restart().await,
            Op::Crash => {
                self.world.crash().await;
                assert_eq!(self.world.open().await.unwrap(), None, "nothing was lost");
            }
            Op::LoseIndex { crash } => self.lose_index(*crash).await,
            Op::RestoreIndex => self.restore_index().await,
            Op::Verify => self.verify().await,
            Op::Rotate { tenant, killed } => self.rotate(*tenant, *killed).await,
            Op::DestroyOldEpochs => self.destroy_old_epochs().await,
            Op::Erase { tenant, which } => self.erase(*tenant, *which).await,
            Op::Sweep { killed } => self.sweep(*killed).await,
            Op::Faulty(fault, op) => {
                self.arm(*fault);
                self.call(op, Weather::Faulty).await;
            }
            Op::Cut(op, after) => self.cut(op, *after).await,
            Op::FaultyStart { fault, lose } => self.faulty_start(*fault, *lose).await,
            Op::Weather(storm, ops, after) => self.weather(*storm, ops, *after).await,
            Op::Begin(..) | Op::Write { .. } | Op::Commit { .. } | Op::CommitAgain(_) | Op::Abort(_) => {
                self.resume(op).await;
            }
            op => self.call(op, Weather::Fair).await,
        }
    }

    /// What happens to a resumable upload.
    async fn resume(&mut self, op: &Op) {
        let vault = Arc::clone(self.vault());
        match op {
            Op::Begin(draw) => {
                let upload = self.upload(draw);
                self.sessions.begin(&vault, &self.model, upload).await;
            }
            Op::Write {
                which,
                length,
                settle,
            } => self.sessions.write(&vault, *which, *length, *settle).await,
            Op::Commit { which, says_more } => {
                self.sessions
                    .commit(&vault, &mut self.model, *which, *says_more)
                    .await;
            }
            Op::CommitAgain(which) => self.sessions.commit_again(&vault, &self.model, *which).await,
            Op::Abort(which) => self.sessions.abort(&vault, *which).await,
            other => panic!("nothing resumable: {other:?}"),
        }
    }

    // --- what happens to the process ---

    async fn restart(&mut self) {
        self.world.close().await;
        self.snapshot = Some(self.world.snapshot_index().await.unwrap());
        assert_eq!(self.world.open().await.unwrap(), None, "nothing was lost");
    }

    /// Changes nothing that anybody sees, whatever happens to the process.
    async fn rotate(&mut self, tenant: Option<u8>, killed: Option<u8>) {
        let begun = match tenant.map(tenant_id) {
            Some(tenant) => self.vault().rotate_tenant_key("keys", &tenant, None).await,
            None => self.vault().rotate_root_epoch("keys", None).await,
        };
        let operation = match begun {
            Ok(operation) => operation,
            Err(error) => {
                assert_eq!(error.kind, Kind::NotFound, "{error:?}");
                return;
            }
        };
        self.operation_ended(&operation.id, killed).await;
        self.agrees().await;
    }

    /// A record goes, with all that was derived from it, whatever its class says.
    async fn erase(&mut self, tenant: u8, which: usize) {
        let tenant = tenant_id(tenant);
        let Some(have) = self.model.tenants.get(&tenant) else {
            return;
        };
        let ids: Vec<RecordId> = have.records.keys().copied().collect();
        let Some(id) = ids.get(which % ids.len().max(1)).copied() else {
            return;
        };
        let spec = ErasureSpec {
            tenant: tenant.clone(),
            actor: ACTOR.to_owned(),
            target: Target::Records(vec![id]),
            ground: Ground::MandatoryDestruction,
            reference: "CASE-1".parse().unwrap(),
            grace_micros: None,
            expected_set: None,
            request: None,
        };
        let erasure = self.vault().request_erasure(spec).await.unwrap();
        let gone = self.model.erase(&tenant, id);
        assert_eq!(erasure.state, ErasureState::Effective);
        assert_eq!(erasure.shredded, gone.len() as u64);
        self.erased.push((tenant, erasure.id));
        self.agrees().await;
    }

    /// Changes nothing that anybody sees but how far erasures are, whatever happens to the process.
    async fn sweep(&mut self, killed: Option<u8>) {
        let operation = self.vault().run_sweep("keys", None).await.unwrap();
        self.operation_ended(&operation.id, killed).await;
        for (tenant, erasure) in &self.erased {
            let now = self.vault().erasure(tenant, erasure).await.unwrap();
            assert_eq!(now.state, ErasureState::Final);
        }
        self.agrees().await;
    }

    async fn operation_ended(&mut self, operation: &OperationId, killed: Option<u8>) {
        if let Some(millis) = killed {
            tokio::time::sleep(Duration::from_millis(u64::from(millis))).await;
            self.world.crash().await;
            assert_eq!(self.world.open().await.unwrap(), None, "nothing was lost");
        }
        while self
            .vault()
            .key_operation(operation, |_| true)
            .await
            .unwrap()
            .state
            == OperationState::Running
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What a sweep does in the end: from now on no older copy of keys is of use, and none may be needed.
    async fn destroy_old_epochs(&mut self) {
        let epochs = self.vault().root_epochs().await.unwrap();
        let root = self.world.root_provider().unwrap();
        for epoch in epochs.iter().filter(|epoch| epoch.state != KeyState::Enabled) {
            let label = EpochLabel {
                vault: *self.vault().id(),
                epoch: epoch.epoch,
            };
            root.destroy(label, "").await.unwrap();
        }
    }

    async fn lose_index(&mut self, crash: bool) {
        if crash {
            self.world.crash().await;
        } else {
            self.world.close().await;
        }
        self.world.lose_index().await.unwrap();
        self.reopen_behind().await;
        self.agrees().await;
    }

    async fn restore_index(&mut self) {
        let Some(snapshot) = self.snapshot.take() else {
            return;
        };
        self.world.close().await;
        self.world.restore_index(&snapshot).await.unwrap();
        self.reopen_behind().await;
        self.snapshot = Some(snapshot);
        self.agrees().await;
    }

    /// Opens a vault whose index may be behind: failed puts may appear.
    async fn reopen_behind(&mut self) {
        if let Some(replayed) = self.world.open().await.unwrap() {
            assert_eq!(replayed.broken, Vec::<String>::new());
        }
        self.take_from_limbo().await;
    }

    async fn take_from_limbo(&mut self) {
        for tenant in self.model.tenants.keys().cloned().collect::<Vec<_>>() {
            let Ok(_) = self.vault().tenant(&tenant).await else {
                continue;
            };
            let mut unknown = everything(self.vault(), &tenant).await;
            let have = &self.model.tenants[&tenant].records;
            unknown.retain(|r| !have.contains_key(&r.id));
            unknown.sort_by_key(|r| r.id);
            for record in unknown {
                self.accept_late(&tenant, record);
            }
        }
    }

    fn accept_late(&mut self, tenant: &TenantId, record: Record) {
        let region = record.region.clone();
        let holdings = self.model.tenants.get_mut(tenant).unwrap();
        let found = holdings.limbo.iter().position(|l| {
            l.descriptor == record.descriptor
                && l.upload.at == record.created
                && l.upload.content.len() as u64 == record.size
        });
        let Some(found) = found else {
            panic!("nobody asked for this record: {record:?}")
        };
        let limbo = holdings.limbo.remove(found);
        assert!(
            !holdings.answered_otherwise(&limbo.upload),
            "a request has one record"
        );
        let expected = self
            .model
            .accept(&limbo.upload, record.id, limbo.kind, limbo.descriptor, &region);
        assert_eq!(record, expected);
    }

    /// The model must be what the vault shows now.
    async fn agrees(&self) {
        if let Some(difference) = self.difference(&self.model).await {
            panic!("{difference}");
        }
    }

    async fn verify(&self) {
        self.vault().settle().await.unwrap();
        let report = self.vault().verify().await.unwrap();
        assert!(report.findings.len() <= self.orphans, "{:?}", report.findings);
        for finding in &report.findings {
            assert!(
                finding.subject.starts_with("blobs/") && finding.what.contains("orphan"),
                "{finding:?}"
            );
        }
        let records: usize = self.model.tenants.values().map(|t| t.records.len()).sum();
        assert_eq!(
            (report.records, report.tenants),
            (records as u64, self.model.tenants.len() as u64)
        );
    }

    fn arm(&self, fault: Fault) {
        let rule = self
            .world
            .faults
            .on(fault.operation)
            .below(fault.below)
            .nth(fault.nth)
            .times(fault.times);
        match fault.harm {
            Harm::Before(failure) => rule.fail_before(failure),
            Harm::After(failure) => rule.fail_after(failure),
            Harm::Hang => rule.hang(),
            Harm::Stall => rule.hang_after(),
            Harm::Twice => rule.twice(),
            Harm::Flip(at) => rule.flip(at),
            Harm::Truncate(length) => rule.truncate(length),
            Harm::Lengthen(more) => rule.lengthen(more),
            Harm::Misstate(length) => rule.misstate(length),
        };
    }

    /// A start that the store spoils is refused, and the next one is as if it had never been.
    async fn faulty_start(&mut self, fault: Fault, lose: bool) {
        if lose {
            // What is queued is lost with it: blobs without a leaf are adopted, however often the start is spoilt.
            self.world.crash().await;
            self.world.lose_index().await.unwrap();
        } else {
            self.world.close().await;
        }
        // A damage that stays is a damage: what a replay then leaves out is for the scrub to report.
        self.arm(if fault.corrupts() { fault.is_once() } else { fault });
        let opened = self.world.open().await;
        self.world.faults.clear();
        let replayed = match opened {
            Ok(replayed) => replayed,
            Err(_) => self.world.open().await.unwrap(),
        };
        if let Some(replayed) = replayed {
            assert_eq!(replayed.broken, Vec::<String>::new());
        }
        self.take_from_limbo().await;
        self.agrees().await;
    }

    /// Several calls in a storm of a minute, each compared; then everything agrees again.
    ///
    /// In memory only: a caller that goes away leaves nothing half done there, so that at once its call has happened or not.
    async fn weather(&mut self, storm: Storm, ops: &[Op], after: Option<After>) {
        use callvault::testing::faulty::{Failure, Operation};
        if self.engine != Engine::Memory {
            return;
        }
        let faults = self.world.faults.clone();
        self.log_is_down = matches!(storm, Storm::LogGone);
        match storm {
            Storm::Gone => faults.take_down(),
            Storm::Denied => faults.take_down_with(Failure::Denied),
            Storm::Slow => drop(
                faults
                    .on_all()
                    .every(3)
                    .always()
                    .fail_before(Failure::Unavailable),
            ),
            Storm::LogGone => drop(
                faults
                    .on_all()
                    .below("log/")
                    .always()
                    .fail_before(Failure::Unavailable),
            ),
            Storm::Noise => drop(faults.on(Operation::Get).every(3).always().flip(50)),
        }
        for op in ops {
            if let Op::Advance(_) = op {
                continue;
            }
            self.advance(MINUTE / ops.len() as i64);
            Box::pin(self.call(op, Weather::Storm)).await;
            if self.adrift {
                break;
            }
        }
        let after = match after {
            Some(After::CrashAndLose) => after,
            _ if std::mem::take(&mut self.adrift) => Some(After::Crash),
            _ => after,
        };
        (self.log_is_down, self.adrift) = (false, false);
        match after {
            None => {
                faults.clear();
                self.vault().settle().await.unwrap();
            }
            Some(After::Restart) => {
                faults.clear();
                self.world.close().await;
            }
            Some(After::Crash | After::CrashAndLose) => {
                self.world.crash().await;
                faults.clear();
            }
        }
        if matches!(after, Some(After::CrashAndLose)) {
            self.world.lose_index().await.unwrap();
        }
        if after.is_some() {
            self.reopen_behind().await;
        }
        self.agrees().await;
    }

    async fn cut(&mut self, op: &Op, after: After) {
        use callvault::testing::faulty::Failure;
        self.world
            .faults
            .on_all()
            .below("log/")
            .always()
            .fail_before(Failure::Unavailable);
        let before = self.model.clone();
        self.call(op, Weather::Cut).await;
        let next = std::mem::replace(&mut self.model, before);
        match after {
            After::Restart => {
                self.world.faults.clear();
                self.world.close().await;
            }
            After::Crash | After::CrashAndLose => {
                self.world.crash().await;
                self.world.faults.clear();
            }
        }
        if matches!(after, After::CrashAndLose) {
            self.world.lose_index().await.unwrap();
        }
        if let Some(replayed) = self.world.open().await.unwrap() {
            assert_eq!(replayed.broken, Vec::<String>::new());
        }
        if self.answered {
            self.model = next;
            self.take_from_limbo().await;
            self.agrees().await;
        } else {
            self.settle_among(next).await;
        }
    }

    /// A change was not acknowledged: it has happened, or it has not.
    async fn settle_among(&mut self, next: Model) {
        let before = std::mem::replace(&mut self.model, next);
        self.take_from_limbo().await;
        let Some(after) = self.difference(&self.model).await else {
            return;
        };
        let next = std::mem::replace(&mut self.model, before);
        for (id, holdings) in &mut self.model.tenants {
            holdings.limbo.clone_from(&next.tenants[id].limbo);
        }
        self.take_from_limbo().await;
        if let Some(before) = self.difference(&self.model).await {
            panic!("neither before nor after: {before}; {after}");
        }
    }

    // --- calls ---

    /// Compares an answer; what was not answered has happened or not.
    async fn compare<T: PartialEq + Debug>(
        &mut self,
        weather: Weather,
        got: Option<Result<T, Error>>,
        next: Model,
        expected: Answer<T>,
    ) {
        if weather == Weather::Faulty {
            self.world.faults.clear();
        }
        if weather == Weather::Storm && got.is_none() {
            return self.settle_among(next).await;
        }
        let got = got.map(|g| g.map_err(|e| (told(&e), format!("{e:?}"))));
        self.answered = got
            .as_ref()
            .is_some_and(|g| !g.as_ref().is_err_and(|(e, _)| of_the_store(*e)));
        match (got, weather) {
            (Some(Ok(got)), _) => {
                assert_eq!(Ok(got), expected);
                self.model = next;
            }
            (Some(Err((got, _))), _) if Err(got) == expected.as_ref().map(|_| ()).map_err(|e| *e) => {
                self.model = next
            }
            (Some(Err((got, _))), Weather::Faulty | Weather::Storm) if of_the_store(got) => {
                self.settle_among(next).await;
            }
            // Settled when the process has come back.
            (Some(Err((got, _))), Weather::Cut) if of_the_store(got) => self.model = next,
            (None, Weather::Cut) => self.model = next,
            (got, _) => panic!("expected {expected:?}, got {got:?}"),
        }
    }

    async fn call(&mut self, op: &Op, weather: Weather) {
        let mut next = self.model.clone();
        match op {
            Op::CreateTenant {
                tenant,
                settings,
                request,
            } => {
                let (id, settings, request) = (
                    tenant_id(*tenant),
                    settings.at_creation(),
                    request.map(request_id),
                );
                let call = self
                    .vault()
                    .create_tenant(ACTOR, &id, settings.clone(), request.as_ref());
                let got = patient(weather, call).await;
                let expected = next.create_tenant(&id, settings, request.as_ref());
                self.compare(weather, got, next, expected).await;
            }
            Op::UpdateTenant {
                tenant,
                fields,
                settings,
                etag,
                request,
            } => {
                let (id, request) = (tenant_id(*tenant), request.map(request_id));
                let names = [
                    "display_name",
                    "controller",
                    "default_retention_class",
                    "allowed_purposes",
                ];
                let change = TenantChange {
                    fields: drawn(&names, u16::from(*fields)),
                    settings: settings.settings(),
                };
                let current = self.model.tenant(&id).map(|t| t.etag());
                let etag = pick(*etag, current.ok());
                let call = self
                    .vault()
                    .update_tenant(ACTOR, &id, &change, etag.as_deref(), request.as_ref());
                let got = patient(weather, call).await;
                let expected = next.update_tenant(&id, &change, etag.as_deref(), request.as_ref());
                self.compare(weather, got, next, expected).await;
            }
            Op::CreateClass {
                tenant,
                class: n,
                minimum,
                maximum,
                request,
            } => {
                let (id, request) = (tenant_id(*tenant), request.map(request_id));
                let mut new = class(class_id(*n).as_str());
                (new.minimum_days, new.maximum_days) = (*minimum, *maximum);
                let call = self
                    .vault()
                    .create_retention_class(ACTOR, &id, new.clone(), request.as_ref());
                let got = patient(weather, call).await;
                let expected = next.create_class(&id, new, request.as_ref());
                self.compare(weather, got, next, expected).await;
            }
            Op::Put(draw) => {
                let upload = self.upload(draw);
                self.uploads.push(upload.clone());
                self.put(upload, draw.chunk, weather).await;
            }
            Op::PutMessages(draws) => {
                let uploads = draws.iter().map(|draw| Upload {
                    message: true,
                    ..self.upload(draw)
                });
                let uploads: Vec<_> = uploads.collect();
                self.uploads.extend(uploads.iter().cloned());
                self.put_messages(uploads, weather).await;
            }
            Op::Repeat { which, other } => {
                let Some(upload) = self.repeat(*which, *other) else {
                    return self.passed(weather);
                };
                if upload.message {
                    self.put_messages(vec![upload], weather).await;
                } else {
                    self.put(upload, 9_999, weather).await;
                }
            }
            Op::GetMessages {
                tenant,
                which,
                purpose: p,
            } => {
                let id = tenant_id(*tenant);
                let some = |n: &usize| self.some_record(&id, *n).unwrap_or_else(nobody);
                let ids: Vec<_> = which.iter().map(some).collect();
                let got = self.vault().messages(&id, &ids, purpose(*p)).await.unwrap();
                if weather == Weather::Faulty {
                    self.world.faults.clear();
                }
                for (record, got) in ids.into_iter().zip(got) {
                    let got = got.map_err(|e| told(&e));
                    let expected = self.model.message(&id, record, purpose(*p));
                    let expected = expected.map(|(record, body)| (record, Bytes(body)));
                    if got.as_ref().is_err_and(|e| of_a_read(*e)) && weather != Weather::Fair {
                        if weather == Weather::Faulty {
                            let again = self.vault().message(&id, record, purpose(*p)).await;
                            let again = again.map(|(record, body)| (record, Bytes(body)));
                            assert_eq!(again.map_err(|e| told(&e)), expected);
                        }
                        continue;
                    }
                    assert_eq!(got.map(|(record, body)| (record, Bytes(body))), expected);
                }
            }
            Op::Update {
                tenant,
                which,
                fields,
                described,
                etag,
                request,
            } => {
                let id = tenant_id(*tenant);
                let Some(record) = self.some_record(&id, *which) else {
                    return self.passed(weather);
                };
                let names = [
                    "conversation_id",
                    "channel",
                    "direction",
                    "start_time",
                    "duration",
                    "parties",
                    "labels",
                    "allowed_purposes",
                    "age_flag",
                    "source",
                ];
                let change = DescriptorChange {
                    fields: drawn(&names, *fields),
                    descriptor: described.update(),
                };
                let current = self.model.locate(&id, &Name::Id(record)).map(|(r, _)| r.etag());
                let (etag, request) = (pick(*etag, current.ok()), request.map(request_id));
                let spec = UpdateSpec {
                    judge: None,
                    tenant: id.clone(),
                    record,
                    actor: ACTOR.to_owned(),
                    change: change.clone(),
                    etag: etag.clone(),
                    request: request.clone(),
                };
                let got = patient(weather, self.vault().update(spec)).await;
                let expected = next.update(&id, record, &change, etag.as_deref(), request.as_ref());
                self.compare(weather, got, next, expected).await;
            }
            Op::Get {
                tenant,
                which,
                purpose: p,
            } => {
                let id = tenant_id(*tenant);
                let name = match which {
                    Which::Record(n) => Name::Id(self.some_record(&id, *n).unwrap_or_else(nobody)),
                    Which::External(n) => Name::External(external_id(*n)),
                    Which::Nobody => Name::Id(nobody()),
                };
                let got = self.vault().record(&id, &name, purpose(*p)).await;
                let expected = self.model.record(&id, &name, purpose(*p));
                self.compare(weather, Some(got), next, expected).await;
            }
            Op::Read {
                tenant,
                which,
                offset,
                limit,
                purpose: p,
            } => {
                let id = tenant_id(*tenant);
                let record = self.some_record(&id, *which).unwrap_or_else(nobody);
                let limit = limit.filter(|l| *l > 0);
                let got = read_range(self.vault(), &id, record, *offset, limit, purpose(*p)).await;
                let expected = self.model.read(&id, record, *offset, limit, purpose(*p));
                let (got, expected) = (got.map(Bytes::from), expected.map(Bytes));
                if weather != Weather::Fair && got.as_ref().is_err_and(|e| of_a_read(told(e))) {
                    if weather == Weather::Faulty {
                        self.world.faults.clear();
                        let again = read_range(self.vault(), &id, record, *offset, limit, purpose(*p)).await;
                        assert_eq!(again.map(Bytes::from).map_err(|e| told(&e)), expected);
                    }
                    return;
                }
                self.compare(weather, Some(got), next, expected).await;
            }
            Op::List {
                tenant,
                query,
                newest,
                size,
                purpose: p,
            } => {
                let (id, query) = (tenant_id(*tenant), query.query());
                let order = if *newest {
                    Order::NewestFirst
                } else {
                    Order::OldestFirst
                };
                let got = list_all(self.vault(), &id, &query, order, *size, purpose(*p)).await;
                let expected = self.model.list(&id, &query, order, purpose(*p));
                self.compare(weather, Some(got), next, expected).await;
            }
            Op::Advance(micros) => {
                self.world.faults.clear();
                self.advance(*micros);
            }
            other => panic!("not a call: {other:?}"),
        }
    }

    /// Nothing was called: what was armed for it is forgotten.
    fn passed(&self, weather: Weather) {
        if weather != Weather::Storm {
            self.world.faults.clear();
        }
    }

    async fn put(&mut self, upload: Upload, chunk: usize, weather: Weather) {
        let mut next = self.model.clone();
        let call = put_in(
            self.vault(),
            upload.spec.clone(),
            &upload.content,
            chunk,
            upload.closing.clone(),
        );
        let got = patient(weather, call).await;
        let expected = match self.model.put(&upload) {
            Err(refused) => Err(refused),
            Ok(Outcome::Repeated(record)) => Ok(*record),
            Ok(Outcome::New(kind, descriptor)) => {
                if let Some(Ok(record)) = &got {
                    Ok(next.accept(&upload, record.id, kind, *descriptor, &record.region))
                } else {
                    self.orphans += 1;
                    let limbo = Limbo {
                        upload: upload.clone(),
                        kind,
                        descriptor: *descriptor,
                    };
                    let holdings = next.tenants.get_mut(&upload.spec.tenant).unwrap();
                    holdings.limbo.push(limbo);
                    Err((Kind::Internal, "the store did not fail"))
                }
            }
        };
        if weather == Weather::Faulty && matches!(&got, Some(Err(_))) {
            // Nothing unacknowledged is visible before a rebuild.
            self.world.faults.clear();
            self.agrees().await;
        }
        self.compare(weather, got, next, expected).await;
    }

    async fn put_messages(&mut self, uploads: Vec<Upload>, weather: Weather) {
        let mut next = self.model.clone();
        let tenant = uploads[0].spec.tenant.clone();
        let specs = uploads.iter().map(message_of).collect();
        // They go on without their caller: so it goes only where it would wait for ever.
        let waits = weather == Weather::Storm && !self.log_is_down;
        let how = if waits { Weather::Faulty } else { weather };
        let got = patient(how, self.vault().put_messages(&tenant, specs)).await;
        if weather == Weather::Faulty {
            self.world.faults.clear();
        }
        self.answered = got.is_some();
        self.adrift |= weather == Weather::Storm && got.is_none();
        let got: Vec<_> = match got {
            Some(got) => got.unwrap().into_iter().map(Some).collect(),
            None => uploads.iter().map(|_| None).collect(),
        };
        assert_eq!(got.len(), uploads.len());
        for ((upload, got), expected) in uploads.iter().zip(got).zip(self.model.put_batch(&uploads)) {
            let got = got.map(|got| got.map_err(|e| told(&e)));
            match (got, expected) {
                (Some(got), Err(refused)) => assert_eq!(got, Err(refused)),
                (Some(Ok(got)), Ok(Outcome::Repeated(record))) => assert_eq!(got, *record),
                (Some(Ok(got)), Ok(Outcome::New(kind, descriptor))) => {
                    let new = next.accept(upload, got.id, kind, *descriptor, &got.region);
                    assert_eq!(got, new);
                }
                (None, Err(_) | Ok(Outcome::Repeated(_))) => {}
                (got, Ok(outcome)) => {
                    let excused = match got {
                        Some(Err(told)) => of_the_store(told) && weather != Weather::Fair,
                        None => matches!(weather, Weather::Cut | Weather::Storm),
                        _ => false,
                    };
                    assert!(excused, "{outcome:?} {upload:?}");
                    self.answered = false;
                    let Outcome::New(kind, descriptor) = outcome else {
                        continue;
                    };
                    self.orphans += 1;
                    let holdings = next.tenants.get_mut(&tenant).unwrap();
                    holdings.limbo.push(Limbo {
                        upload: upload.clone(),
                        kind,
                        descriptor: *descriptor,
                    });
                }
            }
        }
        self.model = next;
        if weather == Weather::Faulty {
            // Nothing unacknowledged is visible before a rebuild.
            self.agrees().await;
        }
    }

    fn upload(&self, draw: &Draw) -> Upload {
        let tenant = tenant_id(draw.tenant);
        let derived = draw.derived.map(|n| {
            self.some_record(&tenant, n)
                .filter(|_| n % 4 > 0)
                .unwrap_or_else(nobody)
        });
        let content = draw.content();
        let digest = ring::digest::digest(&ring::digest::SHA256, &content);
        let mut sha256: [u8; 32] = digest.as_ref().try_into().unwrap();
        if draw.expected == 3 {
            sha256[7] ^= 1;
        }
        let length = content.len() as u64;
        let closing = draw.closing.clone().unwrap_or_default();
        Upload {
            message: false,
            spec: PutSpec {
                tenant,
                actor: ACTOR.to_owned(),
                draft: Draft {
                    descriptor: draw.described.descriptor(derived),
                    has_media_type: draw.says_media,
                    has_retention_class: draw.says_class,
                },
                request: draw.request.map(request_id),
                expected_size: match draw.expected {
                    0 => Some(length),
                    1 => Some(length + 1),
                    2 => Some(length.saturating_sub(1)),
                    _ => None,
                },
                expected_sha256: (3..5).contains(&draw.expected).then_some(sha256),
            },
            closing: Closing {
                duration_millis: closing.0,
                parties: closing.1.iter().map(|p| p.party()).collect(),
            },
            content,
            at: self.model.now,
        }
    }

    fn repeat(&self, which: usize, other: Other) -> Option<Upload> {
        let requested: Vec<_> = self.uploads.iter().filter(|u| u.spec.request.is_some()).collect();
        let mut upload = (*requested.get(which % requested.len().max(1))?).clone();
        upload.at = self.model.now;
        match other {
            Other::Nothing => {}
            Other::Content => {
                let mut bytes = upload.content.to_vec();
                *bytes.last_mut()? ^= 1;
                upload.content = bytes.into();
            }
            Other::Length => upload.content = upload.content.slice(..upload.content.len() / 2),
            Other::Closing if upload.message => {}
            Other::Closing => upload.closing.duration_millis = Some(123_456),
            Other::Descriptor => upload.spec.draft.descriptor.source = Some("elsewhere".parse().unwrap()),
        }
        Some(upload)
    }

    fn some_record(&self, tenant: &TenantId, n: usize) -> Option<RecordId> {
        let records = &self.model.tenants.get(tenant)?.records;
        records.keys().nth(n % records.len().max(1)).copied()
    }

    // --- everything ---

    /// What the vault shows otherwise than a model, but for contents.
    async fn difference(&self, model: &Model) -> Option<String> {
        let tenants = self.vault().tenants(None, 100, |_| true).await.unwrap().items;
        let expected: Vec<_> = model.tenants.values().map(|t| t.tenant.clone()).collect();
        if tenants != expected {
            return Some(format!("tenants {tenants:?}, expected {expected:?}"));
        }
        for (id, holdings) in &model.tenants {
            let classes = self.vault().retention_classes(id, None, 100).await.unwrap().items;
            let expected: Vec<_> = holdings.classes.values().cloned().collect();
            if classes != expected {
                return Some(format!("classes {classes:?}, expected {expected:?}"));
            }
            let records = everything(self.vault(), id).await;
            let expected = model
                .list(id, &Query::default(), Order::OldestFirst, LAWFUL)
                .unwrap();
            if records != expected {
                return Some(format!("records {records:?}, expected {expected:?}"));
            }
        }
        None
    }

    /// Closes, deletes the index, rebuilds it from the bucket, and compares everything.
    async fn end(&mut self) {
        let vault = Arc::clone(self.vault());
        self.sessions.abort_all(&vault).await;
        drop(vault);
        self.verify().await;
        self.compare_everything().await;
        self.lose_index(false).await;
        self.verify().await;
        self.compare_everything().await;
        self.repeat_every_request().await;
        let full = self.world.settings.memory_budget;
        assert_eq!(self.vault().budget().available(), full, "the budget came back");
        self.world.close().await;
    }

    async fn compare_everything(&self) {
        self.agrees().await;
        for (tenant, holdings) in &self.model.tenants {
            for (id, (record, content)) in &holdings.records {
                let reader = record.descriptor.allowed_purposes.first().copied();
                if let (State::Active, Some(purpose)) = (record.state, reader) {
                    let bytes = read_range(self.vault(), tenant, *id, 0, None, purpose)
                        .await
                        .unwrap();
                    assert!(bytes == *content, "every byte of {id}");
                    let got = self
                        .vault()
                        .message(tenant, *id, purpose)
                        .await
                        .map_err(|e| told(&e));
                    assert_eq!(got, self.model.message(tenant, *id, purpose));
                }
                if let Some(external) = &record.descriptor.external_id {
                    let found = self
                        .vault()
                        .record(tenant, &Name::External(external.clone()), LAWFUL)
                        .await
                        .unwrap();
                    assert_eq!(found.id, *id);
                }
            }
            for query in queries(holdings.records.values().map(|(r, _)| r)) {
                for order in [Order::NewestFirst, Order::OldestFirst] {
                    let found = list_all(self.vault(), tenant, &query, order, 4, LAWFUL)
                        .await
                        .unwrap();
                    assert_eq!(
                        found,
                        self.model.list(tenant, &query, order, LAWFUL).unwrap(),
                        "{query:?}"
                    );
                }
            }
        }
    }

    /// Every request whose life is not over finds what it made.
    async fn repeat_every_request(&mut self) {
        for upload in std::mem::take(&mut self.uploads) {
            let again = Upload {
                at: self.model.now,
                ..upload
            };
            if let Ok(Outcome::Repeated(record)) = self.model.put(&again) {
                if again.message {
                    let one = vec![message_of(&again)];
                    let mut got = self.vault().put_messages(&again.spec.tenant, one).await.unwrap();
                    assert_eq!(got.remove(0).unwrap(), *record);
                    continue;
                }
                let got = put_in(self.vault(), again.spec, &again.content, 77_777, again.closing).await;
                assert_eq!(got.unwrap(), *record);
            }
        }
    }
}

fn message_of(upload: &Upload) -> MessageSpec {
    MessageSpec {
        actor: ACTOR.to_owned(),
        draft: upload.spec.draft.clone(),
        request: upload.spec.request.clone(),
        body: upload.content.clone(),
    }
}

/// A query for everything that any record can be found by.
fn queries<'a>(records: impl Iterator<Item = &'a Record>) -> Vec<Query> {
    let mut all = BTreeMap::new();
    let mut add = |name: String, query: Query| all.insert(name, query);
    for d in records.map(|r| &r.descriptor) {
        let query = Query::default;
        add(
            format!("c{}", d.conversation_id),
            Query {
                conversation: Some(d.conversation_id.clone()),
                ..query()
            },
        );
        add(
            format!("h{:?}", d.channel),
            Query {
                channel: Some(d.channel),
                ..query()
            },
        );
        add(
            format!("d{:?}", d.direction),
            Query {
                direction: d.direction,
                ..query()
            },
        );
        add(
            format!("f{:?}", d.start),
            Query {
                from: Some(d.start),
                ..query()
            },
        );
        add(
            format!("u{:?}", d.start),
            Query {
                until: Some(d.start),
                ..query()
            },
        );
        add(
            format!("s{:?}", d.derived_from),
            Query {
                derived_from: d.derived_from,
                ..query()
            },
        );
        for (k, v) in &d.labels {
            add(
                format!("l{k:?}{v}"),
                Query {
                    labels: [(k.clone(), v.clone())].into(),
                    ..query()
                },
            );
        }
        for p in &d.parties {
            let tel = p.tel.clone().map(SubjectIdentifier::Tel);
            let mail = p.mailto.clone().map(SubjectIdentifier::Mailto);
            let id = p.external_subject_id.clone().map(SubjectIdentifier::External);
            for (n, subject) in [tel, mail, id].into_iter().enumerate() {
                let text = format!(
                    "{n}{:?}{:?}{:?}",
                    p.tel.as_ref().map(|t| t.as_str()),
                    p.mailto.as_ref().map(|t| t.as_str()),
                    p.external_subject_id.as_ref().map(|t| t.as_str())
                );
                add(text, Query { subject, ..query() });
            }
            add(
                format!("a{:?}", p.agent_id.as_ref().map(|a| a.as_str())),
                Query {
                    agent: p.agent_id.clone(),
                    ..query()
                },
            );
        }
    }
    for kind in [RecordKind::Recording, RecordKind::Message, RecordKind::Artifact] {
        add(
            format!("k{kind:?}"),
            Query {
                kinds: [kind].into(),
                ..Query::default()
            },
        );
    }
    for state in [State::Active, State::Restricted] {
        add(
            format!("s{state:?}"),
            Query {
                states: [state].into(),
                ..Query::default()
            },
        );
    }
    all.into_values().collect()
}

/// Content that is compared whole and printed short.
#[derive(PartialEq)]
struct Bytes(bytes::Bytes);

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// A caller that waits, or one that goes away.
async fn patient<T>(weather: Weather, call: impl Future<Output = T>) -> Option<T> {
    if matches!(weather, Weather::Cut | Weather::Storm) {
        tokio::time::timeout(Duration::from_millis(80), call).await.ok()
    } else {
        Some(call.await)
    }
}

/// An answer that blames the store.
fn of_the_store((kind, reason): (Kind, &str)) -> bool {
    match kind {
        Kind::Unavailable => true,
        Kind::Exhausted => reason == "STORE_FULL",
        _ => false,
    }
}

/// What content may be refused with when its store errs: never other bytes.
fn of_a_read(told: (Kind, &str)) -> bool {
    of_the_store(told) || matches!(told, (Kind::Corrupt, "INTEGRITY") | (Kind::Internal, "STORE"))
}

fn drawn(names: &[&'static str], mask: u16) -> BTreeSet<&'static str> {
    names
        .iter()
        .enumerate()
        .filter(|(n, _)| mask & (1 << n) != 0)
        .map(|(_, name)| *name)
        .collect()
}

fn pick(etag: Etag, current: Option<String>) -> Option<String> {
    match etag {
        Etag::None => None,
        Etag::Current => current,
        Etag::Stale => Some("0-9".to_owned()),
    }
}

fn nobody() -> RecordId {
    "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap()
}

fn now(world: &World) -> callvault::domain::clock::Timestamp {
    use callvault::domain::clock::Clock;
    world.clock.now()
}

const _: () = assert!(limits::REQUEST_ID_MICROS == 24 * HOUR);
