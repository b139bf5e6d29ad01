//! Tenants and their retention classes.

use super::{
    Path, masked, number, optional, optional_term,
    record::{numbers, text},
    required, required_term, terms, texts,
    time::{moment_to_proto, optional_moment},
};
use crate::{
    domain::{
        clock::Timestamp,
        limits,
        purpose::{LegalBasis, Purpose},
        tenant::{RetentionAction, RetentionClass, Tenant, TenantRole, TenantSettings},
    },
    proto::v1,
    vault::{Error, Kind, TenantChange},
};

const CHANGEABLE: &[&str] = &[
    "display_name",
    "controller",
    "role",
    "default_retention_class",
    "allowed_purposes",
    "jurisdictions",
];
const FIXED: &[&str] = &["tenant_id", "create_time", "update_time", "etag", "state"];

/// Everything that an administrator says of a tenant. What the vault itself says of it is ignored.
pub(in crate::grpc) fn settings(said: &v1::Tenant) -> Result<TenantSettings, Error> {
    let mut settings = TenantSettings::default();
    for field in CHANGEABLE {
        take(field, said, &mut settings)?;
    }
    Ok(settings)
}

/// The fields of `mask`, and nothing else of `said`.
pub(in crate::grpc) fn settings_change(
    said: &v1::Tenant,
    mask: Option<&prost_types::FieldMask>,
) -> Result<TenantChange, Error> {
    let fields = masked(mask, CHANGEABLE, FIXED)?;
    let mut settings = TenantSettings::default();
    for field in &fields {
        take(field, said, &mut settings)?;
    }
    Ok(TenantChange { fields, settings })
}

fn take(field: &str, said: &v1::Tenant, into: &mut TenantSettings) -> Result<(), Error> {
    let at = Path::root("tenant");
    let at = at.field(field);
    match field {
        "display_name" => into.display_name = optional(&said.display_name, &at)?,
        "controller" => into.controller = optional(&said.controller, &at)?,
        "role" => into.role = optional_term(said.role, role, &at)?,
        "default_retention_class" => {
            into.default_retention_class = optional(&said.default_retention_class, &at)?;
        }
        "allowed_purposes" => {
            into.allowed_purposes = terms(&said.allowed_purposes, Purpose::from_number, &at)?;
        }
        "jurisdictions" => into.jurisdictions = texts(&said.jurisdictions, &at)?,
        _ => return Err(Error::new(Kind::Internal, "NO_FIELD", "a field is not converted")),
    }
    Ok(())
}

fn role(number: u32) -> Option<TenantRole> {
    [TenantRole::Controller, TenantRole::Processor]
        .into_iter()
        .find(|role| *role as u32 == number)
}

fn action(number: u32) -> Option<RetentionAction> {
    [RetentionAction::Shred, RetentionAction::Anonymise]
        .into_iter()
        .find(|action| *action as u32 == number)
}

/// A tenant, for the answer.
pub(in crate::grpc) fn tenant_to_proto(tenant: &Tenant) -> v1::Tenant {
    let settings = &tenant.settings;
    let class = settings.default_retention_class.as_ref();
    v1::Tenant {
        tenant_id: tenant.id.to_string(),
        display_name: text(settings.display_name.as_ref()),
        controller: text(settings.controller.as_ref()),
        role: settings.role.map_or(0, |role| number(role as u32)),
        default_retention_class: class.map(ToString::to_string).unwrap_or_default(),
        allowed_purposes: numbers(&settings.allowed_purposes, Purpose::number),
        jurisdictions: settings
            .jurisdictions
            .iter()
            .map(|j| j.as_str().to_owned())
            .collect(),
        create_time: Some(moment_to_proto(tenant.created)),
        update_time: Some(moment_to_proto(tenant.updated)),
        etag: tenant.etag(),
        state: number(tenant.state as u32),
    }
}

/// A retention class that is to be made. Without a time it is in force from its creation, which 0 stands for.
pub(in crate::grpc) fn class_from_proto(said: &v1::RetentionClass) -> Result<RetentionClass, Error> {
    let at = Path::root("retention_class");
    let maximum = days(said.maximum_days, &at.field("maximum_days"))?;
    let effective = optional_moment(said.effective_time.as_ref(), &at.field("effective_time"))?;
    Ok(RetentionClass {
        id: required(&said.retention_class_id, &at.field("retention_class_id"))?,
        minimum_days: days(said.minimum_days, &at.field("minimum_days"))?,
        maximum_days: (maximum > 0).then_some(maximum),
        action: required_term(said.action, action, &at.field("action"))?,
        jurisdiction: optional(&said.jurisdiction, &at.field("jurisdiction"))?,
        legal_ground: optional_term(
            said.legal_ground,
            LegalBasis::from_number,
            &at.field("legal_ground"),
        )?,
        effective: effective.unwrap_or_default(),
        created: Timestamp::default(),
    })
}

fn days(said: i32, at: &Path<'_>) -> Result<u32, Error> {
    match u32::try_from(said) {
        Ok(days) if days <= limits::RETENTION_DAYS => Ok(days),
        _ => Err(at.refuse(format!("must be 0 to {}", limits::RETENTION_DAYS))),
    }
}

/// A retention class, for the answer.
pub(in crate::grpc) fn class_to_proto(class: &RetentionClass) -> v1::RetentionClass {
    let jurisdiction = class.jurisdiction.as_ref();
    v1::RetentionClass {
        retention_class_id: class.id.to_string(),
        minimum_days: number(class.minimum_days),
        maximum_days: class.maximum_days.map_or(0, number),
        action: number(class.action as u32),
        jurisdiction: jurisdiction.map(|j| j.as_str().to_owned()).unwrap_or_default(),
        legal_ground: class
            .legal_ground
            .map_or(0, |ground| number(LegalBasis::number(ground))),
        effective_time: Some(moment_to_proto(class.effective)),
        create_time: Some(moment_to_proto(class.created)),
    }
}
