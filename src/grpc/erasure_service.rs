//! `ErasureService`: what is to be forgotten is asked for here, and what became of it.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    convert,
    convert::{Path, optional, required},
    erasure::certificate::get_certificate,
    gate, page,
};
use crate::{
    domain::{
        ids::{ErasureId, OperationId},
        principal::Action,
    },
    proto::v1::{
        CancelErasureRequest, CancelErasureResponse, GetCertificateRequest, GetCertificateResponse,
        GetErasureRequest, GetErasureResponse, GetSweepRequest, GetSweepResponse, ListErasuresRequest,
        ListErasuresResponse, PreviewErasureRequest, PreviewErasureResponse, RequestErasureRequest,
        RequestErasureResponse, RunSweepRequest, RunSweepResponse, erasure_service_server::ErasureService,
    },
    vault::{Error, KeyOperation, OperationWork, Vault},
};

const TENANT: Path<'static> = Path::root("tenant_id");
const ERASURE: Path<'static> = Path::root("erasure_id");
const SWEEP: Path<'static> = Path::root("sweep_id");
const REQUEST: Path<'static> = Path::root("request_id");

/// The service over one vault.
#[derive(Clone, Debug)]
pub(super) struct ErasureApi {
    vault: Arc<Vault>,
}

impl ErasureApi {
    /// Serves this vault.
    pub(super) fn new(vault: Arc<Vault>) -> Self {
        Self { vault }
    }

    async fn sweep(&self, operation: &KeyOperation) -> Result<crate::proto::v1::Sweep, Error> {
        let scheduled = self.vault.scheduled_epochs().await?;
        Ok(convert::sweep_to_proto(operation, &scheduled))
    }
}

#[tonic::async_trait]
impl ErasureService for ErasureApi {
    async fn preview_erasure(
        &self,
        request: Request<PreviewErasureRequest>,
    ) -> Result<Response<PreviewErasureResponse>, Status> {
        let caller = gate::may_call(&request, Action::PreviewErasure)?;
        let asked = request.into_inner();
        let tenant = gate::in_scope(&caller, Action::PreviewErasure, &asked.tenant_id, &TENANT)?;
        let target = convert::target(asked.target.as_ref())?;
        let ground = convert::ground(asked.ground)?;
        let preview = self.vault.preview_erasure(&tenant, &target, ground).await?;
        Ok(Response::new(convert::preview_to_proto(&preview)))
    }

    async fn request_erasure(
        &self,
        request: Request<RequestErasureRequest>,
    ) -> Result<Response<RequestErasureResponse>, Status> {
        let caller = gate::may_call(&request, Action::RequestErasure)?;
        let asked = request.into_inner();
        let tenant = gate::in_scope(&caller, Action::RequestErasure, &asked.tenant_id, &TENANT)?;
        let spec = convert::erasure_spec(&tenant, caller.alias(), &asked)?;
        let erasure = self.vault.request_erasure(spec).await?;
        Ok(Response::new(RequestErasureResponse {
            erasure: Some(convert::erasure_to_proto(&erasure)),
        }))
    }

    async fn cancel_erasure(
        &self,
        request: Request<CancelErasureRequest>,
    ) -> Result<Response<CancelErasureResponse>, Status> {
        let caller = gate::may_call(&request, Action::CancelErasure)?;
        let asked = request.into_inner();
        let tenant = gate::in_scope(&caller, Action::CancelErasure, &asked.tenant_id, &TENANT)?;
        let id: ErasureId = required(&asked.erasure_id, &ERASURE)?;
        let erasure = self.vault.cancel_erasure(caller.alias(), &tenant, &id).await?;
        Ok(Response::new(CancelErasureResponse {
            erasure: Some(convert::erasure_to_proto(&erasure)),
        }))
    }

    async fn get_erasure(
        &self,
        request: Request<GetErasureRequest>,
    ) -> Result<Response<GetErasureResponse>, Status> {
        let caller = gate::may_call(&request, Action::GetErasure)?;
        let asked = request.into_inner();
        let tenant = gate::in_scope(&caller, Action::GetErasure, &asked.tenant_id, &TENANT)?;
        let id: ErasureId = required(&asked.erasure_id, &ERASURE)?;
        let erasure = self.vault.erasure(&tenant, &id).await?;
        let pending = self.vault.pending_deletions(&tenant, &id).await?;
        Ok(Response::new(GetErasureResponse {
            erasure: Some(convert::erasure_to_proto(&erasure)),
            pending_deletions: pending.iter().map(convert::pending_deletion_to_proto).collect(),
        }))
    }

    async fn list_erasures(
        &self,
        request: Request<ListErasuresRequest>,
    ) -> Result<Response<ListErasuresResponse>, Status> {
        let caller = gate::may_call(&request, Action::ListErasures)?;
        let asked = request.into_inner();
        let tenant = gate::in_scope(&caller, Action::ListErasures, &asked.tenant_id, &TENANT)?;
        let size = convert::page_size(asked.page_size)?;
        let after: Option<ErasureId> = page::after(&asked.page_token)?;
        let (erasures, more) = self.vault.erasures(&tenant, after.as_ref(), size).await?;
        let last = erasures.last().filter(|_| more).map(|last| last.id.to_string());
        Ok(Response::new(ListErasuresResponse {
            erasures: erasures.iter().map(convert::erasure_to_proto).collect(),
            next_page_token: page::token(last.as_deref()),
        }))
    }

    async fn get_certificate(
        &self,
        request: Request<GetCertificateRequest>,
    ) -> Result<Response<GetCertificateResponse>, Status> {
        let caller = gate::may_call(&request, Action::GetCertificate)?;
        let asked = request.into_inner();
        let tenant = gate::in_scope(&caller, Action::GetCertificate, &asked.tenant_id, &TENANT)?;
        let answer = get_certificate(&self.vault, &tenant, &asked).await?;
        Ok(Response::new(answer))
    }

    async fn run_sweep(
        &self,
        request: Request<RunSweepRequest>,
    ) -> Result<Response<RunSweepResponse>, Status> {
        let caller = gate::may_call(&request, Action::RunSweep)?;
        gate::for_all_tenants(&caller, Action::RunSweep)?;
        let request = optional(&request.get_ref().request_id, &REQUEST)?;
        let operation = self.vault.run_sweep(caller.alias(), request.as_ref()).await?;
        Ok(Response::new(RunSweepResponse {
            sweep: Some(self.sweep(&operation).await?),
        }))
    }

    async fn get_sweep(
        &self,
        request: Request<GetSweepRequest>,
    ) -> Result<Response<GetSweepResponse>, Status> {
        let caller = gate::may_call(&request, Action::GetSweep)?;
        gate::for_all_tenants(&caller, Action::GetSweep)?;
        let id: OperationId = required(&request.get_ref().sweep_id, &SWEEP)?;
        let is_sweep = |operation: &KeyOperation| operation.work == OperationWork::Sweep;
        let operation = self.vault.key_operation(&id, is_sweep).await?;
        Ok(Response::new(GetSweepResponse {
            sweep: Some(self.sweep(&operation).await?),
        }))
    }
}
