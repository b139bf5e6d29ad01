//! Tenants and retention classes.

use std::{collections::BTreeSet, sync::Arc};

use prost::Message;

use crate::{
    domain::{
        clock::Timestamp,
        erasure::Ground,
        ids::{RequestId, TenantId},
        purpose::Purpose,
        tenant::{Tenant, TenantRole, TenantSettings, TenantState},
    },
    index::{Change, Expect, IndexError, Key, Range, Row, Scan, Scope},
    keys::{KeyError, SETTINGS_CLASS},
    ledger::{
        leaf,
        outbox::{LedgerError, Until},
    },
    proto::storage::{self, TenantCreated, TenantRow, TenantSuspended, TenantUpdated, state_leaf::Body},
};

use super::{Error, Kind, Vault, apply, requests::tag_request};

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
            Err(LedgerError::Index(IndexError::Expectation(_))) => Err(tenant_exists()),
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
        let keys = match self.keys.tenant(id).await {
            // Ids are never used again, not even those of the dead.
            Err(KeyError::Punctured) => return Err(tenant_exists()),
            keys => keys?,
        };
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
                items.push(match self.open_tenant(&id, &row).await {
                    // It was shredded since its row was read: its new row says so.
                    Err(error) if error.kind == Kind::Shredded => self.tenant(&id).await?,
                    opened => opened?,
                });
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

    /// Serves a tenant no more for now, or again; returns when that is in the bucket. What reads of it is cut before. Idempotent, and by a
    /// request id also when it was changed back since.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is none, or an erasure covers it; [`Kind::Conflict`] if it changes at this moment.
    pub async fn suspend_tenant(
        self: &Arc<Self>,
        actor: &str,
        id: &TenantId,
        suspended: bool,
        request: Option<&RequestId>,
    ) -> Result<Tenant, Error> {
        let (vault, actor, id, request) = (Arc::clone(self), actor.to_owned(), id.clone(), request.cloned());
        // Whoever asked may go: what is cut is cut.
        let work = async move { vault.suspend(&actor, &id, suspended, request.as_ref()).await };
        self.keys.changes().run((), work).await?
    }

    async fn suspend(
        &self,
        actor: &str,
        id: &TenantId,
        suspended: bool,
        request: Option<&RequestId>,
    ) -> Result<Tenant, Error> {
        let (row, value) = self.kept_tenant(id).await?;
        let keys = self.keys.tenant(id).await?;
        let asked: &[u8] = if suspended { b"suspend" } else { b"resume" };
        let tag = request.map(|request| tag_request(&keys, id, request, asked));
        let done = match &tag {
            Some(tag) => self.seen(id, tag).await?.is_some(),
            None => false,
        };
        let mut is_suspended = row.state == TenantState::Suspended as u32;
        if !done && (is_suspended != suspended || tag.is_some()) {
            let now = self.clock.now();
            let body = TenantSuspended { suspended };
            let mut put = vec![apply::tenant_suspended(&self.rows, id, row, &body)];
            put.extend(tag.as_ref().map(|tag| self.request_row(id, tag, None, now)));
            let change = Change {
                expect: vec![Expect::Equals(Key::Tenant(id.clone()), value)],
                put,
                leaves: vec![leaf::draft_for_request(
                    Scope::Tenant(id.clone()),
                    actor,
                    now,
                    tag.as_ref(),
                    Body::TenantSuspended(body),
                )],
                ..Change::default()
            };
            self.ledger.commit(change, Until::Queued).await?;
            is_suspended = suspended;
        }
        // Before the bucket has it, which may take its time; and again when it is asked for again.
        if is_suspended {
            self.streams.cut_all(id);
        }
        self.ship_before_repeating().await?;
        self.tenant(id).await
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
                "the tenant is suspended: nothing of it is served or stored until its administrator resumes it",
            ));
        }
        Err(Error::not_found())
    }

    /// The row of a tenant that is served, or would be if it were not suspended: what its people may ask for goes on.
    async fn kept_tenant(&self, id: &TenantId) -> Result<(TenantRow, Vec<u8>), Error> {
        let (row, value) = self.tenant_row(id).await?.ok_or_else(Error::not_found)?;
        if row.state == TenantState::Active as u32 || row.state == TenantState::Suspended as u32 {
            return Ok((row, value));
        }
        Err(Error::not_found())
    }

    /// The row of a tenant of which something may be erased on this ground: one that is there, suspended or not. Mandatory destruction
    /// comes before everything, so also of one that waits for its own end, as long as it has keys.
    pub(super) async fn erasable_tenant(
        &self,
        id: &TenantId,
        ground: Ground,
    ) -> Result<(TenantRow, Vec<u8>), Error> {
        if ground != Ground::MandatoryDestruction {
            return self.kept_tenant(id).await;
        }
        let (row, value) = self.tenant_row(id).await?.ok_or_else(Error::not_found)?;
        if row.state == TenantState::Shredded as u32 {
            return Err(Error::not_found());
        }
        Ok((row, value))
    }

    pub(super) async fn open_tenant(&self, id: &TenantId, row: &TenantRow) -> Result<Tenant, Error> {
        let corrupt = || Error::corrupt("tenant settings");
        if row.state == TenantState::Shredded as u32 {
            // Nothing that was said of it can be opened any more.
            return Ok(Tenant {
                id: id.clone(),
                settings: TenantSettings::default(),
                state: TenantState::Shredded,
                version: 0,
                created: Timestamp(row.created_micros),
                updated: Timestamp(row.created_micros),
            });
        }
        let payload = row.settings.as_ref().ok_or_else(corrupt)?;
        let opened = self
            .open_payload(id, SETTINGS, payload, &row.sealed_settings)
            .await?;
        let message = storage::TenantSettings::decode(opened.expose()).map_err(|_| corrupt())?;
        let (version, created, updated) = (
            message.version,
            Timestamp(message.created_micros),
            Timestamp(message.updated_micros),
        );
        let state = TenantState::from_number(row.state).ok_or_else(corrupt)?;
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
