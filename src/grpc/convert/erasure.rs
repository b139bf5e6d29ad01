//! Erasures and sweeps, asked for and answered.

use super::{
    Path, number,
    query::{query_at, subject},
    required, required_term,
    time::{moment_to_proto, optional_millis},
};
use crate::{
    domain::{
        erasure::{Ground, Target},
        ids::TenantId,
        limits,
    },
    proto::v1::{self, erasure_target},
    vault::{Erasure, ErasureSpec, Error, KeyOperation, OperationState, PendingDeletion, Preview},
};

pub(in crate::grpc) fn target(asked: Option<&v1::ErasureTarget>) -> Result<Target, Error> {
    let at = Path::root("target");
    match asked.and_then(|asked| asked.target.as_ref()) {
        None => Err(at.refuse("must name what to erase")),
        Some(erasure_target::Target::Records(records)) => {
            let at = at.field("records");
            let at = at.field("record_ids");
            let ids = &records.record_ids;
            if ids.is_empty() || ids.len() > limits::ERASURE_NAMED {
                return Err(at.refuse(format!("must have 1 to {} items", limits::ERASURE_NAMED)));
            }
            let id = |(index, id): (usize, &String)| required(id, &at.item(index));
            Ok(Target::Records(
                ids.iter().enumerate().map(id).collect::<Result<_, _>>()?,
            ))
        }
        Some(erasure_target::Target::Query(asked)) => {
            query_at(asked, &at.field("query")).map(|query| Target::Query(Box::new(query)))
        }
        Some(erasure_target::Target::Subject(asked)) => {
            subject(asked, &at.field("subject")).map(Target::Subject)
        }
        Some(erasure_target::Target::ConversationId(id)) => {
            required(id, &at.field("conversation_id")).map(Target::Conversation)
        }
        Some(erasure_target::Target::WholeTenant(true)) => Ok(Target::Tenant),
        Some(erasure_target::Target::WholeTenant(false)) => {
            Err(at.field("whole_tenant").refuse("must be true"))
        }
    }
}

pub(in crate::grpc) fn ground(asked: i32) -> Result<Ground, Error> {
    required_term(asked, Ground::from_number, &Path::root("ground"))
}

pub(in crate::grpc) fn erasure_spec(
    tenant: &TenantId,
    actor: &str,
    asked: &v1::RequestErasureRequest,
) -> Result<ErasureSpec, Error> {
    let expected = &asked.expected_set_sha256;
    let expected_set = match expected.len() {
        0 => None,
        32 => <[u8; 32]>::try_from(&expected[..]).ok(),
        _ => return Err(Path::root("expected_set_sha256").refuse("must be 32 bytes")),
    };
    let grace = optional_millis(asked.grace.as_ref(), &Path::root("grace"))?;
    Ok(ErasureSpec {
        tenant: tenant.clone(),
        actor: actor.to_owned(),
        target: target(asked.target.as_ref())?,
        ground: ground(asked.ground)?,
        reference: required(&asked.reference, &Path::root("reference"))?,
        grace_micros: grace.map(|millis| millis.saturating_mul(1_000)),
        expected_set,
        request: super::optional(&asked.request_id, &Path::root("request_id"))?,
    })
}

pub(in crate::grpc) fn erasure_to_proto(erasure: &Erasure) -> v1::Erasure {
    v1::Erasure {
        tenant_id: erasure.tenant.to_string(),
        erasure_id: erasure.id.to_string(),
        state: number(erasure.state.number()),
        ground: number(erasure.ground.number()),
        reference: erasure.reference.clone(),
        requested_by: erasure.actor.clone(),
        approved_by: erasure.approvers.clone(),
        create_time: Some(moment_to_proto(erasure.created)),
        due_time: Some(moment_to_proto(erasure.due)),
        effective_time: erasure.effective.map(moment_to_proto),
        content_final_time: erasure.content_final.map(moment_to_proto),
        search_traces_final_time: erasure.traces_final.map(moment_to_proto),
        cancel_time: erasure.cancelled.map(moment_to_proto),
        whole_tenant: erasure.whole_tenant,
        record_count: count(erasure.records),
        shredded_count: count(erasure.shredded),
        waiting_count: count(erasure.waiting),
        obstacle: erasure.obstacle.clone().unwrap_or_default(),
        set_sha256: erasure.set_sha256.clone().into(),
    }
}

pub(in crate::grpc) fn pending_deletion_to_proto(pending: &PendingDeletion) -> v1::PendingDeletion {
    v1::PendingDeletion {
        object_key: pending.object.clone(),
        tries: i32::try_from(pending.tries).unwrap_or(i32::MAX),
        reason: pending.reason.clone().unwrap_or_default(),
    }
}

pub(in crate::grpc) fn preview_to_proto(preview: &Preview) -> v1::PreviewErasureResponse {
    v1::PreviewErasureResponse {
        record_count: count(preview.records),
        artifact_count: count(preview.artifacts),
        size_bytes: count(preview.bytes),
        held_count: count(preview.held),
        minimum_retention_count: count(preview.minimum_retention),
        blocked_count: count(preview.blocked),
        pending_count: count(preview.pending),
        shared_record_count: count(preview.shared),
        other_subject_count: count(preview.other_subjects),
        minimum_retention_until: preview.minimum_until.map(moment_to_proto),
        set_sha256: preview.set_sha256.clone().into(),
    }
}

pub(in crate::grpc) fn sweep_to_proto(
    operation: &KeyOperation,
    scheduled: &(Vec<u64>, Option<crate::domain::clock::Timestamp>),
) -> v1::Sweep {
    let state = match operation.state {
        OperationState::Running => v1::SweepState::Running,
        OperationState::Succeeded => v1::SweepState::Succeeded,
        OperationState::Failed => v1::SweepState::Failed,
    };
    v1::Sweep {
        sweep_id: operation.id.to_string(),
        state: state.into(),
        actor: operation.actor.clone(),
        create_time: Some(moment_to_proto(operation.created)),
        end_time: operation.ended.map(moment_to_proto),
        pages_done: count(operation.done),
        pages_total: count(operation.total),
        epoch: operation.result.map_or(0, count),
        reason: operation.reason.clone().unwrap_or_default(),
        detail: operation.detail.clone().unwrap_or_default(),
        scheduled_epochs: scheduled.0.iter().map(|epoch| count(*epoch)).collect(),
        scheduled_time: scheduled.1.map(moment_to_proto),
    }
}

fn count(many: u64) -> i64 {
    i64::try_from(many).unwrap_or(i64::MAX)
}
