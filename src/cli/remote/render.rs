//! Records, tenants and retention classes as aligned text.

mod erasure;

use prost_types::{Duration, Timestamp};

pub(super) use erasure::{erasure, erasure_head, erasure_row, preview, sweep};

use super::fields::word;
use crate::{
    cli::terminal::{bytes, columns},
    proto::v1::{Descriptor, KeyOperation, KeyVersion, Party, Record, RetentionClass, RootEpoch, Tenant},
};

/// The first row of a listing of records.
pub(super) fn record_head() -> Vec<String> {
    [
        "RECORD",
        "KIND",
        "START",
        "LENGTH",
        "SIZE",
        "CHANNEL",
        "DIRECTION",
        "CONVERSATION",
        "PARTIES",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// One row of a listing of records.
pub(super) fn record_row(record: &Record) -> Vec<String> {
    let none = Descriptor::default();
    let about = record.descriptor.as_ref().unwrap_or(&none);
    let parties: Vec<_> = about.parties.iter().map(shortly).collect();
    vec![
        record.record_id.clone(),
        word("RECORD_KIND", record.kind().as_str_name()),
        time(about.start_time.as_ref()),
        length(about.duration.as_ref()),
        size(record.size_bytes),
        word("CHANNEL", about.channel().as_str_name()),
        word("DIRECTION", about.direction().as_str_name()),
        about.conversation_id.clone(),
        parties.join(" "),
    ]
}

/// All that is known of a record.
pub(super) fn record(record: &Record) -> String {
    let mut rows = Rows::default();
    rows.add("record", &record.record_id);
    rows.add("tenant", &record.tenant_id);
    rows.add("kind", word("RECORD_KIND", record.kind().as_str_name()));
    rows.add("state", word("RECORD_STATE", record.state().as_str_name()));
    rows.add("size", size(record.size_bytes));
    rows.add("region", &record.region);
    rows.add("created", time(record.create_time.as_ref()));
    rows.add("updated", time(record.update_time.as_ref()));
    rows.add("etag", &record.etag);
    if let Some(about) = &record.descriptor {
        descriptor(about, &mut rows);
    }
    columns(&rows.0)
}

fn descriptor(about: &Descriptor, rows: &mut Rows) {
    rows.add("conversation", &about.conversation_id);
    rows.add("external id", &about.external_id);
    rows.add("derived from", &about.derived_from);
    rows.add("channel", word("CHANNEL", about.channel().as_str_name()));
    rows.add("direction", word("DIRECTION", about.direction().as_str_name()));
    rows.add("start", time(about.start_time.as_ref()));
    rows.add("length", length(about.duration.as_ref()));
    rows.add("media type", &about.media_type);
    rows.add("languages", about.languages.join(" "));
    for party in &about.parties {
        rows.add("party", whole(party));
    }
    let mut labels: Vec<_> = about.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    labels.sort();
    rows.add("labels", labels.join(" "));
    rows.add(
        "data",
        about
            .data_categories()
            .map(|c| word("DATA_CATEGORY", c.as_str_name()))
            .collect::<Vec<_>>()
            .join(" "),
    );
    rows.add(
        "purposes",
        about
            .allowed_purposes()
            .map(|p| word("PURPOSE", p.as_str_name()))
            .collect::<Vec<_>>()
            .join(" "),
    );
    rows.add(
        "legal basis",
        word("LEGAL_BASIS", about.legal_basis().as_str_name()),
    );
    rows.add("notice", &about.notice_version);
    rows.add("consent", &about.consent_ref);
    rows.add("source", &about.source);
    rows.add("retention", &about.retention_class);
    rows.add("age", word("AGE_FLAG", about.age_flag().as_str_name()));
    rows.add("jurisdictions", about.jurisdictions.join(" "));
}

/// The first row of a listing of key versions.
pub(super) fn key_version_head() -> Vec<String> {
    [
        "VERSION",
        "STATE",
        "CREATED",
        "RETIRED",
        "DESTROYED",
        "SEALS",
        "PAGES",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// One row of it.
pub(super) fn key_version_row(version: &KeyVersion) -> Vec<String> {
    vec![
        version.version.to_string(),
        word("KEY_STATE", version.state().as_str_name()),
        time(version.create_time.as_ref()),
        time(version.retire_time.as_ref()),
        time(version.destroy_time.as_ref()),
        version.seal_count.to_string(),
        version.page_count.to_string(),
    ]
}

/// The first row of a listing of root epochs.
pub(super) fn epoch_head() -> Vec<String> {
    [
        "EPOCH",
        "STATE",
        "PROVIDER",
        "CREATED",
        "RETIRED",
        "DESTROYED",
        "PAGES",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// One row of it.
pub(super) fn epoch_row(epoch: &RootEpoch) -> Vec<String> {
    vec![
        epoch.epoch.to_string(),
        word("KEY_STATE", epoch.state().as_str_name()),
        epoch.provider.clone(),
        time(epoch.create_time.as_ref()),
        time(epoch.retire_time.as_ref()),
        time(epoch.destroy_time.as_ref()),
        epoch.page_count.to_string(),
    ]
}

/// The first row of a listing of operations.
pub(super) fn operation_head() -> Vec<String> {
    [
        "OPERATION",
        "WORK",
        "TENANT",
        "STATE",
        "PAGES",
        "CREATED",
        "ENDED",
        "MADE",
        "REASON",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// One row of it.
pub(super) fn operation_row(operation: &KeyOperation) -> Vec<String> {
    let made = Some(operation.result).filter(|made| *made != 0);
    vec![
        operation.operation_id.clone(),
        word("KEY_OPERATION_KIND", operation.kind().as_str_name()),
        operation.tenant_id.clone(),
        word("KEY_OPERATION_STATE", operation.state().as_str_name()),
        format!("{}/{}", operation.pages_done, operation.pages_total),
        time(operation.create_time.as_ref()),
        time(operation.end_time.as_ref()),
        made.map(|made| made.to_string()).unwrap_or_default(),
        operation.reason.clone(),
    ]
}

/// The first row of a listing of tenants.
pub(super) fn tenant_head() -> Vec<String> {
    ["TENANT", "STATE", "ROLE", "RETENTION", "CREATED", "NAME"]
        .map(str::to_owned)
        .to_vec()
}

/// One row of a listing of tenants.
pub(super) fn tenant_row(tenant: &Tenant) -> Vec<String> {
    vec![
        tenant.tenant_id.clone(),
        word("TENANT_STATE", tenant.state().as_str_name()),
        word("TENANT_ROLE", tenant.role().as_str_name()),
        tenant.default_retention_class.clone(),
        time(tenant.create_time.as_ref()),
        tenant.display_name.clone(),
    ]
}

/// All that is known of a tenant.
pub(super) fn tenant(tenant: &Tenant) -> String {
    let mut rows = Rows::default();
    rows.add("tenant", &tenant.tenant_id);
    rows.add("name", &tenant.display_name);
    rows.add("state", word("TENANT_STATE", tenant.state().as_str_name()));
    rows.add("controller", &tenant.controller);
    rows.add("role", word("TENANT_ROLE", tenant.role().as_str_name()));
    rows.add("retention", &tenant.default_retention_class);
    rows.add(
        "purposes",
        tenant
            .allowed_purposes()
            .map(|p| word("PURPOSE", p.as_str_name()))
            .collect::<Vec<_>>()
            .join(" "),
    );
    rows.add("jurisdictions", tenant.jurisdictions.join(" "));
    rows.add("created", time(tenant.create_time.as_ref()));
    rows.add("updated", time(tenant.update_time.as_ref()));
    rows.add("etag", &tenant.etag);
    columns(&rows.0)
}

/// The first row of a listing of retention classes.
pub(super) fn class_head() -> Vec<String> {
    [
        "CLASS",
        "MIN DAYS",
        "MAX DAYS",
        "ACTION",
        "JURISDICTION",
        "GROUND",
        "EFFECTIVE",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// One row of a listing of retention classes.
pub(super) fn class_row(class: &RetentionClass) -> Vec<String> {
    let most = if class.maximum_days == 0 {
        "never due".to_owned()
    } else {
        class.maximum_days.to_string()
    };
    vec![
        class.retention_class_id.clone(),
        class.minimum_days.to_string(),
        most,
        word("RETENTION_ACTION", class.action().as_str_name()),
        class.jurisdiction.clone(),
        word("LEGAL_BASIS", class.legal_ground().as_str_name()),
        time(class.effective_time.as_ref()),
    ]
}

/// Named values; what is empty or unspecified is left out.
#[derive(Default)]
struct Rows(Vec<Vec<String>>);

impl Rows {
    fn add(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() && value != "unspecified" {
            self.0.push(vec![name.to_owned(), value]);
        }
    }
}

fn shortly(party: &Party) -> String {
    let names = [
        &party.tel,
        &party.agent_id,
        &party.mailto,
        &party.external_subject_id,
        &party.name,
    ];
    names
        .into_iter()
        .find(|name| !name.is_empty())
        .cloned()
        .unwrap_or_default()
}

fn whole(party: &Party) -> String {
    let role = word("PARTY_ROLE", party.role().as_str_name());
    let parts = [
        &role,
        &party.tel,
        &party.mailto,
        &party.name,
        &party.external_subject_id,
        &party.agent_id,
        &party.team,
    ];
    parts
        .into_iter()
        .filter(|p| !p.is_empty())
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join("  ")
}

fn time(at: Option<&Timestamp>) -> String {
    at.map(Timestamp::to_string).unwrap_or_default()
}

fn length(length: Option<&Duration>) -> String {
    let length = length.and_then(|length| std::time::Duration::try_from(*length).ok());
    length
        .map(|l| humantime::format_duration(l).to_string())
        .unwrap_or_default()
}

fn size(count: i64) -> String {
    bytes(u64::try_from(count).unwrap_or(0))
}
