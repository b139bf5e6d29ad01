//! Erasures and sweeps as aligned text.

use super::{Rows, size, time, word};
use crate::{
    cli::terminal::columns,
    proto::v1::{Erasure, PendingDeletion, PreviewErasureResponse, Sweep},
};

/// What an erasure would cover.
pub(in crate::cli::remote) fn preview(preview: &PreviewErasureResponse) -> String {
    let mut rows = Rows::default();
    rows.add("records", preview.record_count.to_string());
    rows.add("of these artifacts", some(preview.artifact_count));
    rows.add("size", size(preview.size_bytes));
    rows.add("held", some(preview.held_count));
    rows.add("minimum retention", some(preview.minimum_retention_count));
    rows.add("until", time(preview.minimum_retention_until.as_ref()));
    rows.add("blocked", some(preview.blocked_count));
    rows.add("of another erasure", some(preview.pending_count));
    rows.add("about others too", some(preview.shared_record_count));
    rows.add("others", some(preview.other_subject_count));
    rows.add("sha256", hex::encode(&preview.set_sha256));
    columns(&rows.0)
}

/// The first row of a listing of erasures.
pub(in crate::cli::remote) fn erasure_head() -> Vec<String> {
    [
        "ERASURE",
        "STATE",
        "GROUND",
        "REFERENCE",
        "CREATED",
        "DUE",
        "EFFECTIVE",
        "SHREDDED",
        "WAITING",
        "FOR",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// One row of it.
pub(in crate::cli::remote) fn erasure_row(erasure: &Erasure) -> Vec<String> {
    vec![
        erasure.erasure_id.clone(),
        word("ERASURE_STATE", erasure.state().as_str_name()),
        word("ERASURE_GROUND", erasure.ground().as_str_name()),
        erasure.reference.clone(),
        time(erasure.create_time.as_ref()),
        time(erasure.due_time.as_ref()),
        time(erasure.effective_time.as_ref()),
        shredded(erasure),
        some(erasure.waiting_count),
        erasure.obstacle.clone(),
    ]
}

/// All that is known of an erasure, and the objects that wait for their deletion.
pub(in crate::cli::remote) fn erasure(erasure: &Erasure, pending: &[PendingDeletion]) -> String {
    let mut rows = Rows::default();
    rows.add("erasure", &erasure.erasure_id);
    rows.add("tenant", &erasure.tenant_id);
    rows.add("state", word("ERASURE_STATE", erasure.state().as_str_name()));
    rows.add("ground", word("ERASURE_GROUND", erasure.ground().as_str_name()));
    rows.add("reference", &erasure.reference);
    rows.add("requested by", &erasure.requested_by);
    rows.add("approved by", erasure.approved_by.join(" "));
    rows.add("created", time(erasure.create_time.as_ref()));
    rows.add("due", time(erasure.due_time.as_ref()));
    rows.add("cancelled", time(erasure.cancel_time.as_ref()));
    rows.add("effective", time(erasure.effective_time.as_ref()));
    rows.add("content final", time(erasure.content_final_time.as_ref()));
    rows.add("traces final", time(erasure.search_traces_final_time.as_ref()));
    rows.add("shredded", shredded(erasure));
    rows.add("waiting", some(erasure.waiting_count));
    rows.add("for", &erasure.obstacle);
    rows.add("sha256", hex::encode(&erasure.set_sha256));
    rows.add(
        "not deleted yet",
        some(i64::try_from(pending.len()).unwrap_or(i64::MAX)),
    );
    let text = columns(&rows.0);
    if pending.is_empty() {
        return text;
    }
    let head = ["OBJECT", "TRIES", "REASON"].map(str::to_owned).to_vec();
    let objects: Vec<_> = std::iter::once(head)
        .chain(pending.iter().map(pending_row))
        .collect();
    format!("{text}\n{}", columns(&objects))
}

fn pending_row(pending: &PendingDeletion) -> Vec<String> {
    vec![
        pending.object_key.clone(),
        pending.tries.to_string(),
        pending.reason.clone(),
    ]
}

/// All that is known of a sweep.
pub(in crate::cli::remote) fn sweep(sweep: &Sweep) -> String {
    let mut rows = Rows::default();
    rows.add("sweep", &sweep.sweep_id);
    rows.add("state", word("SWEEP_STATE", sweep.state().as_str_name()));
    rows.add("asked by", &sweep.actor);
    rows.add("pages", format!("{}/{}", sweep.pages_done, sweep.pages_total));
    rows.add("created", time(sweep.create_time.as_ref()));
    rows.add("ended", time(sweep.end_time.as_ref()));
    rows.add("epoch", some(sweep.epoch));
    rows.add("reason", &sweep.reason);
    rows.add("detail", &sweep.detail);
    let scheduled: Vec<_> = sweep.scheduled_epochs.iter().map(i64::to_string).collect();
    rows.add("scheduled epochs", scheduled.join(" "));
    rows.add("destroyed by", time(sweep.scheduled_time.as_ref()));
    columns(&rows.0)
}

/// `3/5`; of a tenant, which is shredded with one key, nothing.
fn shredded(erasure: &Erasure) -> String {
    if erasure.whole_tenant {
        "all of the tenant".to_owned()
    } else {
        format!("{}/{}", erasure.shredded_count, erasure.record_count)
    }
}

/// A count, unless it is none.
fn some(count: i64) -> String {
    Some(count)
        .filter(|count| *count != 0)
        .map_or_else(String::new, |count| count.to_string())
}
