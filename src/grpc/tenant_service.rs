//! `TenantService`: tenants and their retention classes.

use std::{collections::BTreeSet, ops::Bound, sync::Arc};

use tonic::{Request, Response, Status};

use super::{
    Caller, convert,
    convert::{Path, optional},
    gate, page,
};
use crate::{
    domain::{
        ids::TenantId,
        principal::{Action, TenantScope},
        tenant::Tenant,
    },
    proto::v1::{
        CreateRetentionClassRequest, CreateRetentionClassResponse, CreateTenantRequest, CreateTenantResponse,
        GetTenantRequest, GetTenantResponse, ListRetentionClassesRequest, ListRetentionClassesResponse,
        ListTenantsRequest, ListTenantsResponse, ResumeTenantRequest, ResumeTenantResponse,
        SuspendTenantRequest, SuspendTenantResponse, UpdateTenantRequest, UpdateTenantResponse,
        tenant_service_server::TenantService,
    },
    vault::{Error, Kind, TenantPage, Vault},
};

const TENANT: Path<'static> = Path::root("tenant_id");
const REQUEST: Path<'static> = Path::root("request_id");

/// The service over one vault.
#[derive(Clone, Debug)]
pub(super) struct TenantApi {
    vault: Arc<Vault>,
}

impl TenantApi {
    /// Serves this vault.
    pub(super) fn new(vault: Arc<Vault>) -> Self {
        Self { vault }
    }

    /// A page of the tenants in `scope`. Ids out of scope are neither read nor come into a token.
    /// Those of which the caller would be told each by itself.
    async fn tenants(
        &self,
        caller: &Caller,
        after: Option<&TenantId>,
        size: usize,
    ) -> Result<TenantPage<Tenant>, Error> {
        let covers = |id: &TenantId| gate::covers(caller, Action::ListTenants, id);
        match caller.whole_scope() {
            TenantScope::All => self.vault.tenants(after, size, covers).await,
            TenantScope::Some(tenants) => {
                let tenants = tenants.into_iter().filter(covers).collect();
                self.tenants_among(&tenants, after, size).await
            }
        }
    }

    async fn tenants_among(
        &self,
        scope: &BTreeSet<TenantId>,
        after: Option<&TenantId>,
        size: usize,
    ) -> Result<TenantPage<Tenant>, Error> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut ids = scope.range((from, Bound::Unbounded));
        let mut items = Vec::new();
        let mut last = None;
        for id in ids.by_ref().take(size) {
            match self.vault.tenant(id).await {
                Ok(tenant) => items.push(tenant),
                Err(Error {
                    kind: Kind::NotFound, ..
                }) => {}
                Err(error) => return Err(error),
            }
            last = Some(id.to_string());
        }
        let more = ids.next().is_some();
        Ok(TenantPage {
            items,
            next: last.filter(|_| more),
        })
    }
}

#[tonic::async_trait]
impl TenantService for TenantApi {
    async fn create_tenant(
        &self,
        request: Request<CreateTenantRequest>,
    ) -> Result<Response<CreateTenantResponse>, Status> {
        let caller = gate::may_call(&request, Action::CreateTenant)?;
        let asked = request.into_inner();
        let at = Path::root("tenant");
        let said = asked.tenant.ok_or_else(|| at.refuse("is required"))?;
        let id = gate::in_scope(
            &caller,
            Action::CreateTenant,
            &said.tenant_id,
            &at.field("tenant_id"),
        )?;
        let settings = convert::settings(&said)?;
        let request = optional(&asked.request_id, &REQUEST)?;
        let tenant = self
            .vault
            .create_tenant(caller.alias(), &id, settings, request.as_ref())
            .await?;
        Ok(Response::new(CreateTenantResponse {
            tenant: Some(convert::tenant_to_proto(&tenant)),
        }))
    }

    async fn get_tenant(
        &self,
        request: Request<GetTenantRequest>,
    ) -> Result<Response<GetTenantResponse>, Status> {
        let caller = gate::may_call(&request, Action::GetTenant)?;
        let id = gate::in_scope(&caller, Action::GetTenant, &request.get_ref().tenant_id, &TENANT)?;
        let tenant = self.vault.tenant(&id).await?;
        Ok(Response::new(GetTenantResponse {
            tenant: Some(convert::tenant_to_proto(&tenant)),
        }))
    }

    async fn list_tenants(
        &self,
        request: Request<ListTenantsRequest>,
    ) -> Result<Response<ListTenantsResponse>, Status> {
        let caller = gate::may_call(&request, Action::ListTenants)?;
        let size = convert::page_size(request.get_ref().page_size)?;
        let after = page::after(&request.get_ref().page_token)?;
        let page = self.tenants(&caller, after.as_ref(), size).await?;
        Ok(Response::new(ListTenantsResponse {
            tenants: page.items.iter().map(convert::tenant_to_proto).collect(),
            next_page_token: page::token(page.next.as_deref()),
        }))
    }

    async fn update_tenant(
        &self,
        request: Request<UpdateTenantRequest>,
    ) -> Result<Response<UpdateTenantResponse>, Status> {
        let caller = gate::may_call(&request, Action::UpdateTenant)?;
        let asked = request.into_inner();
        let id = gate::in_scope(&caller, Action::UpdateTenant, &asked.tenant_id, &TENANT)?;
        let at = Path::root("tenant");
        let said = asked.tenant.ok_or_else(|| at.refuse("is required"))?;
        if !said.tenant_id.is_empty() && said.tenant_id != id.as_str() {
            return Err(at.field("tenant_id").refuse("must be empty or tenant_id").into());
        }
        let change = convert::settings_change(&said, asked.update_mask.as_ref())?;
        let etag = Some(asked.etag.as_str()).filter(|etag| !etag.is_empty());
        let request = optional(&asked.request_id, &REQUEST)?;
        let tenant = self
            .vault
            .update_tenant(caller.alias(), &id, &change, etag, request.as_ref())
            .await?;
        Ok(Response::new(UpdateTenantResponse {
            tenant: Some(convert::tenant_to_proto(&tenant)),
        }))
    }

    async fn suspend_tenant(
        &self,
        request: Request<SuspendTenantRequest>,
    ) -> Result<Response<SuspendTenantResponse>, Status> {
        let caller = gate::may_call(&request, Action::SuspendTenant)?;
        let asked = request.get_ref();
        let id = gate::in_scope(&caller, Action::SuspendTenant, &asked.tenant_id, &TENANT)?;
        let request = optional(&asked.request_id, &REQUEST)?;
        let tenant = self
            .vault
            .suspend_tenant(caller.alias(), &id, true, request.as_ref())
            .await?;
        Ok(Response::new(SuspendTenantResponse {
            tenant: Some(convert::tenant_to_proto(&tenant)),
        }))
    }

    async fn resume_tenant(
        &self,
        request: Request<ResumeTenantRequest>,
    ) -> Result<Response<ResumeTenantResponse>, Status> {
        let caller = gate::may_call(&request, Action::ResumeTenant)?;
        let asked = request.get_ref();
        let id = gate::in_scope(&caller, Action::ResumeTenant, &asked.tenant_id, &TENANT)?;
        let request = optional(&asked.request_id, &REQUEST)?;
        let tenant = self
            .vault
            .suspend_tenant(caller.alias(), &id, false, request.as_ref())
            .await?;
        Ok(Response::new(ResumeTenantResponse {
            tenant: Some(convert::tenant_to_proto(&tenant)),
        }))
    }

    async fn create_retention_class(
        &self,
        request: Request<CreateRetentionClassRequest>,
    ) -> Result<Response<CreateRetentionClassResponse>, Status> {
        let caller = gate::may_call(&request, Action::CreateRetentionClass)?;
        let asked = request.into_inner();
        let tenant = gate::in_scope(&caller, Action::CreateRetentionClass, &asked.tenant_id, &TENANT)?;
        let said = asked
            .retention_class
            .ok_or_else(|| Path::root("retention_class").refuse("is required"))?;
        let class = convert::class_from_proto(&said)?;
        let request = optional(&asked.request_id, &REQUEST)?;
        let class = self
            .vault
            .create_retention_class(caller.alias(), &tenant, class, request.as_ref())
            .await?;
        Ok(Response::new(CreateRetentionClassResponse {
            retention_class: Some(convert::class_to_proto(&class)),
        }))
    }

    async fn list_retention_classes(
        &self,
        request: Request<ListRetentionClassesRequest>,
    ) -> Result<Response<ListRetentionClassesResponse>, Status> {
        let caller = gate::may_call(&request, Action::ListRetentionClasses)?;
        let asked = request.get_ref();
        let tenant = gate::in_scope(&caller, Action::ListRetentionClasses, &asked.tenant_id, &TENANT)?;
        let size = convert::page_size(asked.page_size)?;
        let after = page::after(&asked.page_token)?;
        let page = self
            .vault
            .retention_classes(&tenant, after.as_ref(), size)
            .await?;
        Ok(Response::new(ListRetentionClassesResponse {
            retention_classes: page.items.iter().map(convert::class_to_proto).collect(),
            next_page_token: page::token(page.next.as_deref()),
        }))
    }
}
