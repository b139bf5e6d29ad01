//! `KeyService`: keys are listed, rotated and destroyed. No key comes through here, only what is known of it.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    Caller, convert,
    convert::{Path, optional, required},
    gate, page,
};
use crate::{
    domain::{ids::OperationId, principal::Action},
    proto::v1::{
        DestroyKeyVersionRequest, DestroyKeyVersionResponse, GetKeyOperationRequest, GetKeyOperationResponse,
        ListKeyOperationsRequest, ListKeyOperationsResponse, ListKeyVersionsRequest, ListKeyVersionsResponse,
        ListRootEpochsRequest, ListRootEpochsResponse, ListSigningKeysRequest, ListSigningKeysResponse,
        RotateRootEpochRequest, RotateRootEpochResponse, RotateTenantKeyRequest, RotateTenantKeyResponse,
        key_service_server::KeyService,
    },
    vault::{Error, KeyOperation, OperationWork, Vault},
};

const TENANT: Path<'static> = Path::root("tenant_id");
const REQUEST: Path<'static> = Path::root("request_id");
const OPERATION: Path<'static> = Path::root("operation_id");
const VERSION: Path<'static> = Path::root("version");

/// The service over one vault.
#[derive(Clone, Debug)]
pub(super) struct KeyApi {
    vault: Arc<Vault>,
}

impl KeyApi {
    /// Serves this vault.
    pub(super) fn new(vault: Arc<Vault>) -> Self {
        Self { vault }
    }
}

#[tonic::async_trait]
impl KeyService for KeyApi {
    async fn list_key_versions(
        &self,
        request: Request<ListKeyVersionsRequest>,
    ) -> Result<Response<ListKeyVersionsResponse>, Status> {
        let caller = gate::may_call(&request, Action::ListKeyVersions)?;
        let said = &request.get_ref().tenant_id;
        let tenant = gate::in_scope(&caller, Action::ListKeyVersions, said, &TENANT)?;
        let versions = self.vault.key_versions(&tenant).await?;
        Ok(Response::new(ListKeyVersionsResponse {
            key_versions: versions
                .iter()
                .map(|version| convert::key_version_to_proto(&tenant, version))
                .collect(),
        }))
    }

    async fn rotate_tenant_key(
        &self,
        request: Request<RotateTenantKeyRequest>,
    ) -> Result<Response<RotateTenantKeyResponse>, Status> {
        let caller = gate::may_call(&request, Action::RotateTenantKey)?;
        let asked = request.into_inner();
        let tenant = gate::in_scope(&caller, Action::RotateTenantKey, &asked.tenant_id, &TENANT)?;
        let request = optional(&asked.request_id, &REQUEST)?;
        let operation = self
            .vault
            .rotate_tenant_key(caller.alias(), &tenant, request.as_ref())
            .await?;
        Ok(Response::new(RotateTenantKeyResponse {
            operation: Some(convert::operation_to_proto(&operation)),
        }))
    }

    async fn destroy_key_version(
        &self,
        request: Request<DestroyKeyVersionRequest>,
    ) -> Result<Response<DestroyKeyVersionResponse>, Status> {
        let caller = gate::may_call(&request, Action::DestroyKeyVersion)?;
        let asked = request.into_inner();
        let tenant = gate::in_scope(&caller, Action::DestroyKeyVersion, &asked.tenant_id, &TENANT)?;
        let version = version(&asked)?;
        let destroyed = self
            .vault
            .destroy_key_version(caller.alias(), &tenant, version)
            .await?;
        Ok(Response::new(DestroyKeyVersionResponse {
            key_version: Some(convert::key_version_to_proto(&tenant, &destroyed)),
        }))
    }

    async fn rotate_root_epoch(
        &self,
        request: Request<RotateRootEpochRequest>,
    ) -> Result<Response<RotateRootEpochResponse>, Status> {
        let caller = gate::may_call(&request, Action::RotateRootEpoch)?;
        gate::for_all_tenants(&caller, Action::RotateRootEpoch)?;
        let request = optional(&request.get_ref().request_id, &REQUEST)?;
        let operation = self
            .vault
            .rotate_root_epoch(caller.alias(), request.as_ref())
            .await?;
        Ok(Response::new(RotateRootEpochResponse {
            operation: Some(convert::operation_to_proto(&operation)),
        }))
    }

    async fn list_root_epochs(
        &self,
        request: Request<ListRootEpochsRequest>,
    ) -> Result<Response<ListRootEpochsResponse>, Status> {
        let caller = gate::may_call(&request, Action::ListRootEpochs)?;
        gate::for_all_tenants(&caller, Action::ListRootEpochs)?;
        let epochs = self.vault.root_epochs().await?;
        Ok(Response::new(ListRootEpochsResponse {
            root_epochs: epochs.iter().map(convert::epoch_to_proto).collect(),
        }))
    }

    async fn list_signing_keys(
        &self,
        request: Request<ListSigningKeysRequest>,
    ) -> Result<Response<ListSigningKeysResponse>, Status> {
        let caller = gate::may_call(&request, Action::ListSigningKeys)?;
        gate::of_region(&caller, Action::ListSigningKeys)?;
        let keys = self.vault.signing_keys();
        Ok(Response::new(ListSigningKeysResponse {
            signing_keys: keys.iter().map(convert::signing_key_to_proto).collect(),
        }))
    }

    async fn get_key_operation(
        &self,
        request: Request<GetKeyOperationRequest>,
    ) -> Result<Response<GetKeyOperationResponse>, Status> {
        let caller = gate::may_call(&request, Action::GetKeyOperation)?;
        let id: OperationId = required(&request.get_ref().operation_id, &OPERATION)?;
        // What lies outside the caller's scope does not exist.
        let may_know = |operation: &KeyOperation| may_know(&caller, Action::GetKeyOperation, operation);
        let operation = self.vault.key_operation(&id, may_know).await?;
        Ok(Response::new(GetKeyOperationResponse {
            operation: Some(convert::operation_to_proto(&operation)),
        }))
    }

    async fn list_key_operations(
        &self,
        request: Request<ListKeyOperationsRequest>,
    ) -> Result<Response<ListKeyOperationsResponse>, Status> {
        let caller = gate::may_call(&request, Action::ListKeyOperations)?;
        let size = convert::page_size(request.get_ref().page_size)?;
        let after: Option<OperationId> = page::after(&request.get_ref().page_token)?;
        let may_know = |operation: &KeyOperation| may_know(&caller, Action::ListKeyOperations, operation);
        let (known, more) = self.vault.key_operations(after.as_ref(), size, may_know).await?;
        let last = known.last().filter(|_| more).map(|last| last.id.to_string());
        Ok(Response::new(ListKeyOperationsResponse {
            operations: known.iter().map(convert::operation_to_proto).collect(),
            next_page_token: page::token(last.as_deref()),
        }))
    }
}

/// The version that a request names.
pub(super) fn version(asked: &DestroyKeyVersionRequest) -> Result<u64, Error> {
    let version = u64::try_from(asked.version).ok();
    let version = version.filter(|version| *version > 0);
    version.ok_or_else(|| VERSION.refuse("must be a version's number, from 1"))
}

fn may_know(caller: &Caller, action: Action, operation: &KeyOperation) -> bool {
    match &operation.work {
        OperationWork::RotateTenantKey(tenant) => gate::covers(caller, action, tenant),
        OperationWork::RotateRootEpoch | OperationWork::Sweep => {
            gate::for_all_tenants(caller, action).is_ok()
        }
    }
}
