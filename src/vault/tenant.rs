//! Tenants and retention classes.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use ring::digest;

use crate::{
    blob::{
        format::Request,
        store::{ByteRange, ObjectKey, StoreError},
    },
    crypto::{aead, blind, context, kdf, secret::Dek},
    domain::{
        clock::Timestamp,
        ids::{PageId, RecordId, RequestId, RetentionClassId, TenantId},
        limits,
        purpose::{LegalBasis, Purpose},
        tenant::{RetentionAction, RetentionClass, Tenant, TenantRole, TenantSettings, TenantState},
    },
    index::{Change, Expect, Key, Range, Row, Scan, Scope},
    keys::{FreshSlot, SETTINGS_CLASS, tenant::TenantKeys},
    ledger::{
        leaf,
        outbox::{LedgerError, Until},
    },
    proto::storage::{
        self, RequestRow, RetentionClassCreated, SealedPayload, TenantCreated, TenantRow, TenantUpdated,
        state_leaf::Body,
    },
};

use super::{Error, Kind, Vault, apply};

/// Purpose of a settings payload, in its context.
const SETTINGS: &str = "settings";

/// Settings that replace a tenant's, and which of them do.
#[derive(Clone, Debug, Default)]
pub struct TenantChange {
    /// Fields to take from `settings`: the API's names.
    pub fields: BTreeSet<&'static str>,
    /// Where they are taken from.
    pub settings: TenantSettings,
}

/// One page of tenants or retention classes.
#[derive(Clone, Debug)]
pub struct TenantPage<T> {
    /// In the order of their ids.
    pub items: Vec<T>,
    /// Pass to the next call.
    pub next: Option<String>,
}

impl Vault {
    /// Creates a tenant and its first envelope key; returns when all of it is in the bucket.
    ///
    /// # Errors
    /// [`Kind::AlreadyExists`] if the id was ever used.
    pub async fn create_tenant(
        &self,
        actor: &str,
        id: &TenantId,
        settings: TenantSettings,
        request: Option<&RequestId>,
    ) -> Result<Tenant, Error> {
        if settings.default_retention_class.is_some() {
            return Err(Error::invalid(
                "tenant.default_retention_class",
                "must be empty at creation: create the class, then set it as the default",
            ));
        }
        if self.index.get(&Key::Tenant(id.clone())).await?.is_some() {
            return self.created_before(id, &settings, request).await;
        }
        let now = self.clock.now();
        let new = self.keys.new_tenant(id).await?;
        let tag = request.map(|r| tag_request(&new.keys, id, r, &fingerprint_settings(id, &settings)));
        let stored = settings_to_proto(&settings, 1, now, now);
        let (payload, sealed) =
            self.seal_payload(id, SETTINGS, 1, &stored.encode_to_vec(), &new.settings_slot)?;
        self.put_payload(&payload, sealed.clone()).await?;
        let body = TenantCreated {
            key: Some(apply::wrapped_tenant_key(&new.key)),
            sealed_keyring: new.sealed_keyring.into(),
            settings_page: Some(apply::tenant_page_leaf(&new.settings_page, &new.settings_state)),
            settings: Some(payload),
        };
        let mut put = apply::tenant_created(&self.rows, id, &body, &sealed, now)
            .ok_or_else(|| Error::new(Kind::Internal, "TENANT", "the tenant could not be made"))?;
        let open = storage::OpenPageRow {
            page_id: new.settings_page.as_bytes().to_vec().into(),
            next_slot: 1,
        };
        put.push(
            self.rows
                .row(Key::OpenPage(id.clone(), SETTINGS_CLASS.to_owned(), 0), &open),
        );
        put.extend(tag.as_ref().map(|tag| self.request_row(id, tag, None, now)));
        let change = Change {
            expect: vec![Expect::Absent(Key::Tenant(id.clone()))],
            put,
            leaves: vec![leaf::draft_for_request(
                Scope::Tenant(id.clone()),
                actor,
                now,
                tag.as_ref(),
                Body::TenantCreated(body),
            )],
            ..Change::default()
        };
        match self.ledger.commit(change, Until::Shipped).await {
            Ok(_) => self.tenant(id).await,
            Err(LedgerError::Index(crate::index::IndexError::Expectation(_))) => Err(tenant_exists()),
            Err(error) => Err(error.into()),
        }
    }

    /// A retry of a creation finds what it made; anything else finds the id taken.
    async fn created_before(
        &self,
        id: &TenantId,
        settings: &TenantSettings,
        request: Option<&RequestId>,
    ) -> Result<Tenant, Error> {
        let Some(request) = request else {
            return Err(tenant_exists());
        };
        let keys = self.keys.tenant(id).await?;
        let tag = tag_request(&keys, id, request, &fingerprint_settings(id, settings));
        match self.seen(id, &tag).await? {
            Some(_) => {
                self.ship_before_repeating().await?;
                self.tenant(id).await
            }
            None => Err(tenant_exists()),
        }
    }

    /// A tenant.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is none.
    pub async fn tenant(&self, id: &TenantId) -> Result<Tenant, Error> {
        let row = self.tenant_row(id).await?.ok_or_else(Error::not_found)?.0;
        self.open_tenant(id, &row).await
    }

    /// Tenants by id, after `after`; `covers` says which of them the caller may know.
    pub async fn tenants(
        &self,
        after: Option<&TenantId>,
        limit: usize,
        covers: impl Fn(&TenantId) -> bool,
    ) -> Result<TenantPage<Tenant>, Error> {
        let scan = Scan {
            range: Range::Tenants,
            reverse: false,
            after: after.cloned().map(Key::Tenant),
            limit: limit.clamp(1, 1_000),
        };
        let rows = self.index.scan(&scan).await?;
        let full = rows.len() == scan.limit;
        let mut items = Vec::new();
        let mut last = None;
        for Row { key, value } in rows {
            let row: TenantRow = self.rows.open(&key, &value)?;
            let Key::Tenant(id) = key else { continue };
            if covers(&id) {
                items.push(self.open_tenant(&id, &row).await?);
            }
            last = Some(id.to_string());
        }
        Ok(TenantPage {
            items,
            next: last.filter(|_| full),
        })
    }

    /// Changes a tenant's settings; returns when the change is in the bucket.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if `etag` is no longer the tenant's; [`Kind::NotFound`].
    pub async fn update_tenant(
        &self,
        actor: &str,
        id: &TenantId,
        change: &TenantChange,
        etag: Option<&str>,
        request: Option<&RequestId>,
    ) -> Result<Tenant, Error> {
        let (row, value) = self.active_tenant(id).await?;
        let keys = self.keys.tenant(id).await?;
        let asked = format!("{:?}", change.fields).into_bytes();
        let tag = request.map(|r| {
            let stated = fingerprint_settings(id, &change.settings);
            tag_request(&keys, id, r, &[asked, stated, etag.unwrap_or("").into()].concat())
        });
        if let Some(tag) = &tag
            && self.seen(id, tag).await?.is_some()
        {
            self.ship_before_repeating().await?;
            return self.tenant(id).await;
        }
        let before = self.open_tenant(id, &row).await?;
        if etag.is_some_and(|etag| etag != before.etag()) {
            return Err(etag_conflict());
        }
        let settings = merged(before.settings, change);
        if let Some(class) = &settings.default_retention_class {
            self.require_class(id, class, "tenant.default_retention_class")
                .await?;
        }
        let now = self.clock.now();
        let version = before.version + 1;
        let stored = settings_to_proto(&settings, version, before.created, now);
        let slot = self.keys.fresh_slot(id, None, 0).await?;
        let (payload, sealed) = self.seal_payload(id, SETTINGS, version, &stored.encode_to_vec(), &slot)?;
        self.put_payload(&payload, sealed.clone()).await?;
        let body = TenantUpdated {
            settings: Some(payload),
        };
        let mut put: Vec<Row> = apply::tenant_updated(&self.rows, id, row, &body, &sealed)
            .into_iter()
            .collect();
        put.extend(tag.as_ref().map(|tag| self.request_row(id, tag, None, now)));
        let change = Change {
            expect: vec![Expect::Equals(Key::Tenant(id.clone()), value)],
            put,
            leaves: vec![leaf::draft_for_request(
                Scope::Tenant(id.clone()),
                actor,
                now,
                tag.as_ref(),
                Body::TenantUpdated(body),
            )],
            ..Change::default()
        };
        self.ledger.commit(change, Until::Shipped).await?;
        self.tenant(id).await
    }

    /// Adds a retention class; returns when it is in the bucket.
    ///
    /// # Errors
    /// [`Kind::AlreadyExists`] if the tenant has one of this id.
    pub async fn create_retention_class(
        &self,
        actor: &str,
        tenant: &TenantId,
        class: RetentionClass,
        request: Option<&RequestId>,
    ) -> Result<RetentionClass, Error> {
        self.active_tenant(tenant).await?;
        if class.maximum_days.is_some_and(|most| most < class.minimum_days) {
            return Err(Error::invalid(
                "retention_class.maximum_days",
                "must not be below minimum_days",
            ));
        }
        let now = self.clock.now();
        let stated = class_to_proto(&RetentionClass {
            created: Timestamp(0),
            ..class.clone()
        })
        .encode_to_vec();
        // What a repetition says must be the same whenever it is said, so the time is filled in after it is stated.
        let effective = Some(class.effective).filter(|time| *time != Timestamp(0));
        let class = RetentionClass {
            effective: effective.unwrap_or(now),
            created: now,
            ..class
        };
        let keys = self.keys.tenant(tenant).await?;
        let tag = request.map(|r| tag_request(&keys, tenant, r, &stated));
        if let Some(tag) = &tag
            && self.seen(tenant, tag).await?.is_some()
        {
            self.ship_before_repeating().await?;
            return self
                .retention_class(tenant, &class.id)
                .await?
                .ok_or_else(Error::not_found);
        }
        let body = RetentionClassCreated {
            retention_class: Some(class_to_proto(&class)),
        };
        let key = Key::RetentionClass(tenant.clone(), class.id.clone());
        let mut put: Vec<Row> = apply::retention_class(&self.rows, tenant, &body)
            .into_iter()
            .collect();
        put.extend(tag.as_ref().map(|tag| self.request_row(tenant, tag, None, now)));
        let change = Change {
            expect: vec![Expect::Absent(key)],
            put,
            leaves: vec![leaf::draft_for_request(
                Scope::Tenant(tenant.clone()),
                actor,
                now,
                tag.as_ref(),
                Body::RetentionClassCreated(body),
            )],
            ..Change::default()
        };
        match self.ledger.commit(change, Until::Shipped).await {
            Ok(_) => Ok(class),
            Err(LedgerError::Index(crate::index::IndexError::Expectation(_))) => Err(Error::new(
                Kind::AlreadyExists,
                "RETENTION_CLASS_EXISTS",
                "the tenant has a retention class of this id; choose another id or use it",
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// Retention classes of a tenant by id, after `after`.
    pub async fn retention_classes(
        &self,
        tenant: &TenantId,
        after: Option<&RetentionClassId>,
        limit: usize,
    ) -> Result<TenantPage<RetentionClass>, Error> {
        self.active_tenant(tenant).await?;
        let scan = Scan {
            range: Range::RetentionClasses(tenant.clone()),
            reverse: false,
            after: after.map(|id| Key::RetentionClass(tenant.clone(), id.clone())),
            limit: limit.clamp(1, 1_000),
        };
        let rows = self.index.scan(&scan).await?;
        let full = rows.len() == scan.limit;
        let items = rows
            .iter()
            .map(|Row { key, value }| class_from_proto(self.rows.open(key, value)?))
            .collect::<Result<Vec<_>, _>>()?;
        let next = items.last().map(|class| class.id.to_string()).filter(|_| full);
        Ok(TenantPage { items, next })
    }

    async fn retention_class(
        &self,
        tenant: &TenantId,
        id: &RetentionClassId,
    ) -> Result<Option<RetentionClass>, Error> {
        let key = Key::RetentionClass(tenant.clone(), id.clone());
        let Some(value) = self.index.get(&key).await? else {
            return Ok(None);
        };
        class_from_proto(self.rows.open(&key, &value)?).map(Some)
    }

    /// Refuses a class that the tenant does not have.
    pub(super) async fn require_class(
        &self,
        tenant: &TenantId,
        id: &RetentionClassId,
        field: &str,
    ) -> Result<(), Error> {
        match self.retention_class(tenant, id).await? {
            Some(_) => Ok(()),
            None => Err(Error::invalid(
                field,
                "must name a retention class of the tenant; create it first",
            )),
        }
    }

    pub(super) async fn tenant_row(&self, id: &TenantId) -> Result<Option<(TenantRow, Vec<u8>)>, Error> {
        let key = Key::Tenant(id.clone());
        let Some(value) = self.index.get(&key).await? else {
            return Ok(None);
        };
        Ok(Some((self.rows.open(&key, &value)?, value)))
    }

    /// The row of a tenant that is served. Every call for a tenant comes through here: one row cuts a tenant of any size.
    pub(super) async fn active_tenant(&self, id: &TenantId) -> Result<(TenantRow, Vec<u8>), Error> {
        let (row, value) = self.tenant_row(id).await?.ok_or_else(Error::not_found)?;
        if row.state == TenantState::Active as u32 {
            return Ok((row, value));
        }
        if row.state == TenantState::Suspended as u32 {
            return Err(Error::new(
                Kind::WrongState,
                "TENANT_SUSPENDED",
                "the tenant is suspended",
            ));
        }
        Err(Error::not_found())
    }

    pub(super) async fn open_tenant(&self, id: &TenantId, row: &TenantRow) -> Result<Tenant, Error> {
        let corrupt = || Error::corrupt("tenant settings");
        let payload = row.settings.as_ref().ok_or_else(corrupt)?;
        let opened = self
            .open_payload(id, SETTINGS, payload, &row.sealed_settings)
            .await?;
        let message = storage::TenantSettings::decode(&opened[..]).map_err(|_| corrupt())?;
        let (version, created, updated) = (
            message.version,
            Timestamp(message.created_micros),
            Timestamp(message.updated_micros),
        );
        let state = [TenantState::Active, TenantState::Suspended, TenantState::Shredded]
            .into_iter()
            .find(|s| *s as u32 == row.state)
            .ok_or_else(corrupt)?;
        let settings = settings_from_proto(message).ok_or_else(corrupt)?;
        Ok(Tenant {
            id: id.clone(),
            settings,
            state,
            version,
            created,
            updated,
        })
    }

    /// Seals a payload under a DEK and slot of its own.
    fn seal_payload(
        &self,
        tenant: &TenantId,
        purpose: &str,
        version: u64,
        plaintext: &[u8],
        slot: &FreshSlot,
    ) -> Result<(SealedPayload, Bytes), Error> {
        let dek = Dek::generate(&*self.rng)?;
        let wrap_context = context::wrapped_dek(
            &self.realm.vault,
            tenant,
            &slot.page,
            slot.slot,
            purpose.as_bytes(),
        );
        let wrapped = aead::wrap(&slot.key, dek.expose(), &wrap_context, &*self.rng)?;
        let aad = context::payload(&self.realm.vault, tenant, purpose, version);
        let sealed = Bytes::from(aead::wrap(&kdf::payload_key(&dek), plaintext, &aad, &*self.rng)?);
        let payload = SealedPayload {
            page_id: slot.page.as_bytes().to_vec().into(),
            slot: u32::from(slot.slot),
            wrapped_dek: wrapped.into(),
            commitment: dek.commitment().to_vec().into(),
            version,
            ..name_payload(&sealed)
        };
        Ok((payload, sealed))
    }

    async fn open_payload(
        &self,
        tenant: &TenantId,
        purpose: &str,
        payload: &SealedPayload,
        sealed: &[u8],
    ) -> Result<zeroize::Zeroizing<Vec<u8>>, Error> {
        let corrupt = || Error::corrupt("payload");
        let page = PageId::from_slice(&payload.page_id).map_err(|_| corrupt())?;
        let slot = u16::try_from(payload.slot).map_err(|_| corrupt())?;
        let dek = self
            .open_dek(
                tenant,
                &page,
                slot,
                purpose.as_bytes(),
                &payload.wrapped_dek,
                &payload.commitment,
            )
            .await?;
        let aad = context::payload(&self.realm.vault, tenant, purpose, payload.version);
        let opened = aead::unwrap_to(&kdf::payload_key(&dek), sealed, &aad)?;
        Ok(zeroize::Zeroizing::new(opened.expose().to_vec()))
    }

    /// Writes a payload object under the name that its bytes give it.
    pub(super) async fn put_payload(&self, payload: &SealedPayload, sealed: Bytes) -> Result<(), Error> {
        match self.store.put(&payload_key(payload)?, sealed).await {
            Ok(_) | Err(StoreError::AlreadyExists) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a payload object and checks that its bytes are those that its name promises.
    pub(super) async fn read_payload(&self, payload: &SealedPayload) -> Result<Bytes, Error> {
        let object = self.store.get(&payload_key(payload)?, ByteRange::Full).await?;
        if name_payload(&object.bytes).sha256 != payload.sha256 {
            return Err(Error::corrupt("payload"));
        }
        Ok(object.bytes)
    }

    /// What an earlier call with this request id did; an error if it asked for something else.
    pub(super) async fn seen(&self, tenant: &TenantId, tag: &Request) -> Result<Option<RequestRow>, Error> {
        let key = Key::Request(tenant.clone(), tag.mac);
        let Some(value) = self.index.get(&key).await? else {
            return Ok(None);
        };
        let row: RequestRow = self.rows.open(&key, &value)?;
        if row.expires_micros <= self.clock.now().micros() {
            return Ok(None);
        }
        if row.fingerprint != tag.fingerprint[..] {
            return Err(Error::new(
                Kind::AlreadyExists,
                "REQUEST_ID_REUSED",
                "the request_id was used for something else; use a new one for each request",
            ));
        }
        Ok(Some(row))
    }

    pub(super) fn request_row(
        &self,
        tenant: &TenantId,
        tag: &Request,
        record: Option<&RecordId>,
        at: Timestamp,
    ) -> Row {
        let row = RequestRow {
            record_id: record.map(|r| r.as_bytes().to_vec()).unwrap_or_default().into(),
            fingerprint: tag.fingerprint.to_vec().into(),
            expires_micros: at.plus_micros(limits::REQUEST_ID_MICROS).micros(),
        };
        self.rows.row(Key::Request(tenant.clone(), tag.mac), &row)
    }

    /// Adds a request's row to a change, unless a later use of the same id is known already: leaves may be replayed in any order.
    pub(super) async fn remember_request(
        &self,
        change: &mut Change,
        tenant: &TenantId,
        tag: &Request,
        record: Option<&RecordId>,
        at: Timestamp,
    ) -> Result<(), Error> {
        let row = self.request_row(tenant, tag, record, at);
        match self.index.get(&row.key).await? {
            None => change.expect.push(Expect::Absent(row.key.clone())),
            Some(value) => {
                let have: RequestRow = self.rows.open(&row.key, &value)?;
                if have.expires_micros >= at.plus_micros(limits::REQUEST_ID_MICROS).micros() {
                    return Ok(());
                }
                change.expect.push(Expect::Equals(row.key.clone(), value));
            }
        }
        change.put.push(row);
        Ok(())
    }

    /// An answer that repeats an earlier one promises what that one did: the leaf is in the bucket.
    pub(super) async fn ship_before_repeating(&self) -> Result<(), Error> {
        Ok(self.ledger.ship().await?)
    }
}

/// A request as the vault remembers it.
pub(super) fn tag_request(
    keys: &TenantKeys,
    tenant: &TenantId,
    request: &RequestId,
    asked: &[u8],
) -> Request {
    Request {
        mac: blind::request_mac(keys.request_key(), tenant, request),
        fingerprint: blind::request_fingerprint(keys.request_key(), &[asked]),
    }
}

/// Names a payload by the SHA-256 of its sealed bytes.
pub(super) fn name_payload(sealed: &[u8]) -> SealedPayload {
    SealedPayload {
        sha256: digest::digest(&digest::SHA256, sealed).as_ref().to_vec().into(),
        length: u32::try_from(sealed.len()).unwrap_or(u32::MAX),
        ..SealedPayload::default()
    }
}

fn payload_key(payload: &SealedPayload) -> Result<ObjectKey, Error> {
    Ok(ObjectKey::parse(&format!(
        "payloads/{}",
        hex::encode(&payload.sha256)
    ))?)
}

pub(super) fn etag_conflict() -> Error {
    Error::new(
        Kind::Conflict,
        "ETAG_MISMATCH",
        "it was changed since you read it; read it again and retry",
    )
}

fn tenant_exists() -> Error {
    Error::new(
        Kind::AlreadyExists,
        "TENANT_EXISTS",
        "the tenant id is taken; ids are never used again",
    )
}

fn fingerprint_settings(id: &TenantId, settings: &TenantSettings) -> Vec<u8> {
    let mut bytes = settings_to_proto(settings, 0, Timestamp(0), Timestamp(0)).encode_to_vec();
    bytes.extend_from_slice(id.as_str().as_bytes());
    bytes
}

fn merged(mut settings: TenantSettings, change: &TenantChange) -> TenantSettings {
    let new = change.settings.clone();
    for field in &change.fields {
        match *field {
            "display_name" => settings.display_name.clone_from(&new.display_name),
            "controller" => settings.controller.clone_from(&new.controller),
            "role" => settings.role = new.role,
            "default_retention_class" => {
                settings
                    .default_retention_class
                    .clone_from(&new.default_retention_class);
            }
            "allowed_purposes" => settings.allowed_purposes.clone_from(&new.allowed_purposes),
            "jurisdictions" => settings.jurisdictions.clone_from(&new.jurisdictions),
            _ => {}
        }
    }
    settings
}

fn settings_to_proto(
    s: &TenantSettings,
    version: u64,
    created: Timestamp,
    updated: Timestamp,
) -> storage::TenantSettings {
    let text =
        |t: &Option<crate::domain::text::Text>| t.as_ref().map(|t| t.as_str().to_owned()).unwrap_or_default();
    storage::TenantSettings {
        display_name: text(&s.display_name),
        controller: text(&s.controller),
        role: s.role.map_or(0, |r| r as u32),
        default_retention_class: s
            .default_retention_class
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        allowed_purposes: s.allowed_purposes.iter().map(|p| p.number()).collect(),
        jurisdictions: s.jurisdictions.iter().map(|j| j.as_str().to_owned()).collect(),
        version,
        created_micros: created.micros(),
        updated_micros: updated.micros(),
    }
}

fn settings_from_proto(m: storage::TenantSettings) -> Option<TenantSettings> {
    let role = match m.role {
        0 => None,
        1 => Some(TenantRole::Controller),
        2 => Some(TenantRole::Processor),
        _ => return None,
    };
    Some(TenantSettings {
        display_name: super::descriptor::optional(&m.display_name).ok()?,
        controller: super::descriptor::optional(&m.controller).ok()?,
        role,
        default_retention_class: super::descriptor::optional(&m.default_retention_class).ok()?,
        allowed_purposes: m
            .allowed_purposes
            .iter()
            .map(|n| Purpose::from_number(*n))
            .collect::<Option<_>>()?,
        jurisdictions: m
            .jurisdictions
            .iter()
            .map(|j| j.parse().ok())
            .collect::<Option<_>>()?,
    })
}

fn class_to_proto(class: &RetentionClass) -> storage::RetentionClass {
    storage::RetentionClass {
        id: class.id.to_string(),
        minimum_days: class.minimum_days,
        maximum_days: class.maximum_days.unwrap_or(0),
        action: class.action as u32,
        jurisdiction: class
            .jurisdiction
            .as_ref()
            .map(|j| j.as_str().to_owned())
            .unwrap_or_default(),
        legal_ground: class.legal_ground.map_or(0, LegalBasis::number),
        effective_micros: class.effective.micros(),
        created_micros: class.created.micros(),
    }
}

fn class_from_proto(m: storage::RetentionClass) -> Result<RetentionClass, Error> {
    let corrupt = || Error::corrupt("index row");
    Ok(RetentionClass {
        id: m.id.parse().map_err(|_| corrupt())?,
        minimum_days: m.minimum_days,
        maximum_days: (m.maximum_days > 0).then_some(m.maximum_days),
        action: match m.action {
            1 => RetentionAction::Shred,
            2 => RetentionAction::Anonymise,
            _ => return Err(corrupt()),
        },
        jurisdiction: super::descriptor::optional(&m.jurisdiction).map_err(|_| corrupt())?,
        legal_ground: (m.legal_ground > 0)
            .then(|| LegalBasis::from_number(m.legal_ground).ok_or_else(corrupt))
            .transpose()?,
        effective: Timestamp(m.effective_micros),
        created: Timestamp(m.created_micros),
    })
}
