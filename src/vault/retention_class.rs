//! Retention classes of a tenant.

use prost::Message;

use crate::{
    domain::{
        clock::Timestamp,
        ids::{RequestId, RetentionClassId, TenantId},
        purpose::LegalBasis,
        tenant::{RetentionAction, RetentionClass},
    },
    index::{Change, Expect, IndexError, Key, Range, Row, Scan, Scope},
    ledger::{
        leaf,
        outbox::{LedgerError, Until},
    },
    proto::storage::{self, RetentionClassCreated, state_leaf::Body},
};

use super::{Error, Kind, TenantPage, Vault, apply, requests::tag_request};

impl Vault {
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
            Err(LedgerError::Index(IndexError::Expectation(_))) => Err(Error::new(
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
            None => Err(no_class(field)),
        }
    }
}

pub(super) fn no_class(field: &str) -> Error {
    Error::invalid(
        field,
        "must name a retention class of the tenant; create it first",
    )
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
