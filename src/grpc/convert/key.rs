//! What is known of keys, for answers.

use super::time::moment_to_proto;
use crate::{
    domain::ids::TenantId,
    proto::v1,
    vault::{
        KeyOperation, KeyState, KeyVersion, OperationState, OperationWork, RootEpoch, SigningKeyInfo,
        SigningUse,
    },
};

pub(in crate::grpc) fn key_version_to_proto(tenant: &TenantId, version: &KeyVersion) -> v1::KeyVersion {
    v1::KeyVersion {
        tenant_id: tenant.to_string(),
        version: count(version.version),
        state: state(version.state).into(),
        create_time: Some(moment_to_proto(version.created)),
        retire_time: version.retired.map(moment_to_proto),
        destroy_time: version.destroyed.map(moment_to_proto),
        seal_count: count(version.seals),
        page_count: count(version.pages),
    }
}

pub(in crate::grpc) fn epoch_to_proto(epoch: &RootEpoch) -> v1::RootEpoch {
    v1::RootEpoch {
        epoch: count(epoch.epoch),
        provider: epoch.provider.clone(),
        state: state(epoch.state).into(),
        create_time: Some(moment_to_proto(epoch.created)),
        retire_time: epoch.retired.map(moment_to_proto),
        destroy_time: epoch.destroyed.map(moment_to_proto),
        page_count: count(epoch.pages),
    }
}

pub(in crate::grpc) fn signing_key_to_proto(key: &SigningKeyInfo) -> v1::SigningPublicKey {
    v1::SigningPublicKey {
        kid: key.kid.clone(),
        public_key: key.public_key.to_vec().into(),
        create_time: Some(moment_to_proto(key.created)),
        r#use: match key.signing_use {
            SigningUse::LogCheckpoint => v1::SigningKeyUse::LogCheckpoint,
            SigningUse::Certificate => v1::SigningKeyUse::Certificate,
        }
        .into(),
    }
}

pub(in crate::grpc) fn operation_to_proto(operation: &KeyOperation) -> v1::KeyOperation {
    let (kind, tenant_id) = match &operation.work {
        OperationWork::RotateTenantKey(tenant) => (v1::KeyOperationKind::RotateTenantKey, tenant.to_string()),
        OperationWork::RotateRootEpoch => (v1::KeyOperationKind::RotateRootEpoch, String::new()),
        OperationWork::Sweep => (v1::KeyOperationKind::Sweep, String::new()),
    };
    let state = match operation.state {
        OperationState::Running => v1::KeyOperationState::Running,
        OperationState::Succeeded => v1::KeyOperationState::Succeeded,
        OperationState::Failed => v1::KeyOperationState::Failed,
    };
    v1::KeyOperation {
        operation_id: operation.id.to_string(),
        kind: kind.into(),
        tenant_id,
        state: state.into(),
        actor: operation.actor.clone(),
        pages_done: count(operation.done),
        pages_total: count(operation.total),
        create_time: Some(moment_to_proto(operation.created)),
        end_time: operation.ended.map(moment_to_proto),
        result: operation.result.map_or(0, count),
        reason: operation.reason.clone().unwrap_or_default(),
        detail: operation.detail.clone().unwrap_or_default(),
    }
}

fn state(state: KeyState) -> v1::KeyState {
    match state {
        KeyState::Enabled => v1::KeyState::Enabled,
        KeyState::Retired => v1::KeyState::Retired,
        KeyState::Destroyed => v1::KeyState::Destroyed,
    }
}

fn count(many: u64) -> i64 {
    i64::try_from(many).unwrap_or(i64::MAX)
}
