//! The calls of `TenantService`. Every change gets a `request_id` if it has none, so that a retry is the same change.

use super::{Client, ClientError, retry::request_id};
use crate::proto::v1::{
    CreateRetentionClassRequest, CreateTenantRequest, GetTenantRequest, ListRetentionClassesRequest,
    ListRetentionClassesResponse, ListTenantsRequest, ListTenantsResponse, ResumeTenantRequest,
    RetentionClass, SuspendTenantRequest, Tenant, UpdateTenantRequest,
};

impl Client {
    /// Creates a tenant.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn create_tenant(&self, mut request: CreateTenantRequest) -> Result<Tenant, ClientError> {
        request.request_id = request_id(request.request_id);
        let create = || async { self.tenant_service().create_tenant(request.clone()).await };
        tenant(self.usual_patience().run(create).await?.into_inner().tenant)
    }

    /// One tenant.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn get_tenant(&self, tenant_id: &str) -> Result<Tenant, ClientError> {
        let request = GetTenantRequest {
            tenant_id: tenant_id.to_owned(),
        };
        let get = || async { self.tenant_service().get_tenant(request.clone()).await };
        tenant(self.usual_patience().run(get).await?.into_inner().tenant)
    }

    /// One page of the tenants in the caller's scope.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn list_tenants(
        &self,
        request: ListTenantsRequest,
    ) -> Result<ListTenantsResponse, ClientError> {
        let list = || async { self.tenant_service().list_tenants(request.clone()).await };
        Ok(self.usual_patience().run(list).await?.into_inner())
    }

    /// Changes a tenant.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn update_tenant(&self, mut request: UpdateTenantRequest) -> Result<Tenant, ClientError> {
        request.request_id = request_id(request.request_id);
        let update = || async { self.tenant_service().update_tenant(request.clone()).await };
        tenant(self.usual_patience().run(update).await?.into_inner().tenant)
    }

    /// Has a tenant served no more for now.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn suspend_tenant(&self, mut request: SuspendTenantRequest) -> Result<Tenant, ClientError> {
        request.request_id = request_id(request.request_id);
        let suspend = || async { self.tenant_service().suspend_tenant(request.clone()).await };
        tenant(self.usual_patience().run(suspend).await?.into_inner().tenant)
    }

    /// Has it served again.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn resume_tenant(&self, mut request: ResumeTenantRequest) -> Result<Tenant, ClientError> {
        request.request_id = request_id(request.request_id);
        let resume = || async { self.tenant_service().resume_tenant(request.clone()).await };
        tenant(self.usual_patience().run(resume).await?.into_inner().tenant)
    }

    /// Adds a retention class to a tenant.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn create_retention_class(
        &self,
        mut request: CreateRetentionClassRequest,
    ) -> Result<RetentionClass, ClientError> {
        request.request_id = request_id(request.request_id);
        let create = || async {
            self.tenant_service()
                .create_retention_class(request.clone())
                .await
        };
        let answer = self.usual_patience().run(create).await?.into_inner();
        answer
            .retention_class
            .ok_or(ClientError::Protocol("an answer without a retention class"))
    }

    /// One page of a tenant's retention classes.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn list_retention_classes(
        &self,
        request: ListRetentionClassesRequest,
    ) -> Result<ListRetentionClassesResponse, ClientError> {
        let list = || async {
            self.tenant_service()
                .list_retention_classes(request.clone())
                .await
        };
        Ok(self.usual_patience().run(list).await?.into_inner())
    }
}

fn tenant(answered: Option<Tenant>) -> Result<Tenant, ClientError> {
    answered.ok_or(ClientError::Protocol("an answer without a tenant"))
}
