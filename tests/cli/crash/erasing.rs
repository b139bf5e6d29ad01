//! What a client wants gone, and the keys that turn meanwhile: what was acknowledged as erased never comes back, whenever the
//! process dies.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use callvault::{
    client::{Client, ClientError, Code},
    proto::v1::{
        Channel, CreateRetentionClassRequest, CreateTenantRequest, Descriptor, Erasure, ErasureGround,
        ErasureState, ErasureTarget, KeyOperationState, ListKeyOperationsRequest, PutMessageRequest,
        RecordIds, RequestErasureRequest, RetentionAction, RetentionClass, RotateRootEpochRequest,
        RotateTenantKeyRequest, RunSweepRequest, Tenant, TenantState, erasure_target::Target,
        get_record_request::Name,
    },
};
use tokio::sync::Mutex;

use super::{Campaign, passes};

/// Between two erasures: most of what is put must outlive the campaign.
const PAUSE: Duration = Duration::from_millis(25);
/// Every so many of them takes a tenant.
const TENANT_EVERY: u64 = 5;
/// The retention class of such a tenant.
const CLASS: &str = "short";
/// Records of one erasure.
const RECORDS: usize = 3;

/// One thing that is to go, the same however often it is asked for.
#[derive(Clone, Debug)]
pub(super) struct Doom {
    /// Request id.
    name: String,
    what: Whom,
}

#[derive(Clone, Debug)]
enum Whom {
    Records(Vec<String>),
    /// A tenant of its own, with a message in it.
    Tenant(String),
}

/// What is gone, and what is about to be.
#[derive(Default)]
pub(super) struct Graves {
    /// Of the tenant "dev", with their erasures.
    records: Mutex<BTreeMap<String, String>>,
    /// With their erasures.
    tenants: Mutex<BTreeMap<String, String>>,
    /// Whatever anybody has asked to have erased.
    asked: Mutex<BTreeSet<String>>,
    unheard: Mutex<Vec<Doom>>,
    sweeps: Mutex<BTreeSet<String>>,
    names: AtomicU64,
}

/// Those who may.
#[derive(Clone)]
pub(super) struct Hands {
    compliance: Client,
    keys: Client,
    admin: Client,
    uploader: Client,
}

impl Campaign {
    pub(super) async fn hands(&self) -> Hands {
        Hands {
            compliance: self.client("compliance").await,
            keys: self.client("key-admin").await,
            admin: self.client("tenant-admin").await,
            uploader: self.client("uploader").await,
        }
    }

    /// Has something erased, one after the other, until `stop` says so.
    pub(super) async fn erase_until(&self, stop: &AtomicBool, hands: Hands) {
        while !stop.load(Ordering::Acquire) {
            tokio::time::sleep(PAUSE).await;
            let Some(doom) = self.doom().await else { continue };
            match doom.perform(&hands).await {
                Ok(erasure) => self.bury(&doom, erasure).await,
                Err(error) if passes(&error) => self.graves.unheard.lock().await.push(doom),
                Err(error) => panic!("{}: {error}", doom.name),
            }
        }
    }

    async fn doom(&self) -> Option<Doom> {
        let number = self.graves.names.fetch_add(1, Ordering::Relaxed);
        let name = format!("erase-{}-{number}", self.seed);
        if number % TENANT_EVERY == 1 {
            let tenant = format!("gone-{}-{number}", self.seed);
            return Some(Doom {
                name,
                what: Whom::Tenant(tenant),
            });
        }
        let mut acknowledged = self.book.acknowledged.lock().await;
        if acknowledged.len() < 4 * RECORDS {
            return None;
        }
        let step = acknowledged.len() / (RECORDS + 1);
        let chosen: Vec<String> = acknowledged
            .keys()
            .skip(step / 2)
            .step_by(step)
            .take(RECORDS)
            .cloned()
            .collect();
        for id in &chosen {
            acknowledged.remove(id);
        }
        self.graves.asked.lock().await.extend(chosen.iter().cloned());
        Some(Doom {
            name,
            what: Whom::Records(chosen),
        })
    }

    async fn bury(&self, doom: &Doom, erasure: Erasure) {
        // A request that is repeated after a kill may be answered after a sweep.
        let done = matches!(erasure.state(), ErasureState::Effective | ErasureState::Final);
        assert!(done, "{doom:?} {erasure:?}");
        match &doom.what {
            Whom::Records(ids) => {
                let buried = ids.iter().map(|id| (id.clone(), erasure.erasure_id.clone()));
                self.graves.records.lock().await.extend(buried);
            }
            Whom::Tenant(tenant) => {
                let mut tenants = self.graves.tenants.lock().await;
                tenants.insert(tenant.clone(), erasure.erasure_id);
            }
        }
    }

    /// Whether somebody has asked for the erasure of a record.
    pub(super) async fn is_doomed(&self, id: &str) -> bool {
        self.graves.asked.lock().await.contains(id)
    }

    /// Turns keys of all kinds and sweeps: once each round, while the process lives.
    pub(super) async fn turn_keys(&self, round: u64, hands: Hands) {
        let request_id = format!("keys-{}-{round}", self.seed);
        let turned = match round % 3 {
            0 => {
                let sweep = hands.keys.run_sweep(RunSweepRequest { request_id }).await;
                match sweep {
                    Ok(sweep) => {
                        self.graves.sweeps.lock().await.insert(sweep.sweep_id);
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            1 => {
                let tenant_id = "dev".to_owned();
                let request = RotateTenantKeyRequest {
                    tenant_id,
                    request_id,
                };
                hands.keys.rotate_tenant_key(request).await.map(drop)
            }
            _ => {
                let request = RotateRootEpochRequest { request_id };
                hands.keys.rotate_root_epoch(request).await.map(drop)
            }
        };
        match turned {
            Ok(()) => {}
            Err(error) if passes(&error) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Every erasure that nobody answered is asked for again.
    pub(super) async fn make_erasures_good(&self, hands: &Hands) -> usize {
        let unheard = std::mem::take(&mut *self.graves.unheard.lock().await);
        for doom in &unheard {
            let erasure = doom.perform(hands).await;
            let erasure = erasure.unwrap_or_else(|error| panic!("{}: {error}", doom.name));
            self.bury(doom, erasure).await;
        }
        unheard.len()
    }

    /// Nothing that was erased is there, in `every` of so many.
    pub(super) async fn check_graves(&self, reader: &Client, every: usize) -> usize {
        let records = self.graves.records.lock().await.clone();
        let some: Vec<_> = records.keys().step_by(every).collect();
        for id in &some {
            let found = reader.get_record("dev", Name::RecordId((*id).clone())).await;
            let refused = found.err().and_then(|error| error.code());
            assert_eq!(refused, Some(Code::NotFound), "{id} is there again");
        }
        some.len()
    }

    /// Two more sweeps, for the first of a large tenant leaves identifiers to the next; none was forgotten.
    pub(super) async fn make_final(&self, hands: &Hands) {
        for last in 0..2 {
            let request = RunSweepRequest {
                request_id: format!("last-{}-{last}", self.seed),
            };
            let begun = hands.keys.run_sweep(request).await.unwrap();
            hands.keys.sweep_ended(begun, |_| {}).await.unwrap();
        }
        for sweep in self.graves.sweeps.lock().await.iter() {
            let sweep = hands.keys.get_sweep(sweep).await.unwrap();
            let ended = hands.keys.sweep_ended(sweep, |_| {}).await.unwrap();
            assert!(ended.reason.is_empty(), "{ended:?}");
        }
        let operations = ListKeyOperationsRequest {
            page_size: 1_000,
            ..ListKeyOperationsRequest::default()
        };
        for begun in hands
            .keys
            .list_key_operations(operations)
            .await
            .unwrap()
            .operations
        {
            let ended = hands.keys.key_operation_ended(begun, |_| {}).await.unwrap();
            assert_eq!(ended.state(), KeyOperationState::Succeeded, "{ended:?}");
        }
    }

    /// Every erasure is final and no tenant came back; how many records and tenants those are.
    pub(super) async fn check_final(&self, hands: &Hands) -> (usize, usize) {
        let records = self.graves.records.lock().await.clone();
        let tenants = self.graves.tenants.lock().await.clone();
        let of_records: BTreeSet<_> = records
            .values()
            .map(|id| ("dev".to_owned(), id.clone()))
            .collect();
        let of_tenants = tenants.iter().map(|(tenant, id)| (tenant.clone(), id.clone()));
        for (tenant, erasure) in of_records.into_iter().chain(of_tenants) {
            let found = hands.compliance.get_erasure(&tenant, &erasure).await.unwrap();
            let erasure = found.erasure.unwrap();
            assert_eq!(erasure.state(), ErasureState::Final, "{erasure:?}");
        }
        for tenant in tenants.keys() {
            let found = hands.admin.get_tenant(tenant).await.unwrap();
            assert_eq!(found.state(), TenantState::Shredded, "{tenant}");
        }
        (records.len(), tenants.len())
    }
}

impl Doom {
    async fn perform(&self, hands: &Hands) -> Result<Erasure, ClientError> {
        let (tenant_id, target) = match &self.what {
            Whom::Records(ids) => {
                let record_ids = ids.clone();
                ("dev".to_owned(), Target::Records(RecordIds { record_ids }))
            }
            Whom::Tenant(tenant) => {
                self.make_tenant(tenant, hands).await?;
                (tenant.clone(), Target::WholeTenant(true))
            }
        };
        let request = RequestErasureRequest {
            tenant_id,
            target: Some(ErasureTarget { target: Some(target) }),
            ground: ErasureGround::A17.into(),
            reference: self.name.clone(),
            grace: Some(prost_types::Duration::default()),
            request_id: self.name.clone(),
            ..RequestErasureRequest::default()
        };
        hands.compliance.request_erasure(request).await
    }

    /// A tenant with a message in it; that it is there already, or gone already, is as good.
    async fn make_tenant(&self, tenant: &str, hands: &Hands) -> Result<(), ClientError> {
        let create = CreateTenantRequest {
            tenant: Some(Tenant {
                tenant_id: tenant.to_owned(),
                ..Tenant::default()
            }),
            request_id: format!("{}-tenant", self.name),
        };
        unless(Code::AlreadyExists, hands.admin.create_tenant(create).await)?;
        let class = CreateRetentionClassRequest {
            tenant_id: tenant.to_owned(),
            retention_class: Some(RetentionClass {
                retention_class_id: CLASS.to_owned(),
                action: RetentionAction::Shred.into(),
                ..RetentionClass::default()
            }),
            request_id: format!("{}-class", self.name),
        };
        unless(Code::NotFound, hands.admin.create_retention_class(class).await)?;
        let message = PutMessageRequest {
            tenant_id: tenant.to_owned(),
            descriptor: Some(Descriptor {
                conversation_id: self.name.clone(),
                retention_class: CLASS.to_owned(),
                channel: Channel::Chat.into(),
                start_time: Some(prost_types::Timestamp {
                    seconds: 1_795_478_400,
                    nanos: 0,
                }),
                ..Descriptor::default()
            }),
            request_id: format!("{}-message", self.name),
            body: self.name.clone().into(),
        };
        unless(Code::NotFound, hands.uploader.put_message(message).await)
    }
}

fn unless<T>(fine: Code, answered: Result<T, ClientError>) -> Result<(), ClientError> {
    match answered {
        Err(error) if error.code() != Some(fine) => Err(error),
        _ => Ok(()),
    }
}

/// A record that is read while somebody has it erased may be gone before the end.
pub(super) fn is_gone(error: &ClientError) -> bool {
    matches!(error.code(), Some(Code::NotFound | Code::Aborted))
}
