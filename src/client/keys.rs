//! The calls of `KeyService`.

use std::time::Duration;

use super::{Client, ClientError, retry::request_id};
use crate::proto::v1::{
    DestroyKeyVersionRequest, GetKeyOperationRequest, KeyOperation, KeyOperationState, KeyVersion,
    ListKeyOperationsRequest, ListKeyOperationsResponse, ListKeyVersionsRequest, ListRootEpochsRequest,
    ListSigningKeysRequest, RootEpoch, RotateRootEpochRequest, RotateTenantKeyRequest, SigningPublicKey,
};

/// How often an operation is asked after.
const ASK_EVERY: Duration = Duration::from_millis(100);

impl Client {
    /// The versions of a tenant's key, oldest first.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn list_key_versions(&self, tenant_id: &str) -> Result<Vec<KeyVersion>, ClientError> {
        let request = ListKeyVersionsRequest {
            tenant_id: tenant_id.to_owned(),
        };
        let list = || async { self.key_service().list_key_versions(request.clone()).await };
        Ok(self.usual_patience().run(list).await?.into_inner().key_versions)
    }

    /// Begins to rotate a tenant's key.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn rotate_tenant_key(
        &self,
        mut request: RotateTenantKeyRequest,
    ) -> Result<KeyOperation, ClientError> {
        request.request_id = request_id(request.request_id);
        let rotate = || async { self.key_service().rotate_tenant_key(request.clone()).await };
        operation(self.usual_patience().run(rotate).await?.into_inner().operation)
    }

    /// Destroys a retired version of a tenant's key.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn destroy_key_version(
        &self,
        tenant_id: &str,
        version: i64,
    ) -> Result<KeyVersion, ClientError> {
        let request = DestroyKeyVersionRequest {
            tenant_id: tenant_id.to_owned(),
            version,
        };
        let destroy = || async { self.key_service().destroy_key_version(request.clone()).await };
        let answer = self.usual_patience().run(destroy).await?.into_inner();
        answer
            .key_version
            .ok_or(ClientError::Protocol("an answer without a key version"))
    }

    /// Begins to turn the region's root to a new epoch.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn rotate_root_epoch(
        &self,
        mut request: RotateRootEpochRequest,
    ) -> Result<KeyOperation, ClientError> {
        request.request_id = request_id(request.request_id);
        let rotate = || async { self.key_service().rotate_root_epoch(request.clone()).await };
        operation(self.usual_patience().run(rotate).await?.into_inner().operation)
    }

    /// The region's root epochs, oldest first.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn list_root_epochs(&self) -> Result<Vec<RootEpoch>, ClientError> {
        let list = || async {
            self.key_service()
                .list_root_epochs(ListRootEpochsRequest {})
                .await
        };
        Ok(self.usual_patience().run(list).await?.into_inner().root_epochs)
    }

    /// The public keys that have signed the region's logs and certificates, oldest first.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn list_signing_keys(&self) -> Result<Vec<SigningPublicKey>, ClientError> {
        let list = || async {
            self.key_service()
                .list_signing_keys(ListSigningKeysRequest {})
                .await
        };
        Ok(self.usual_patience().run(list).await?.into_inner().signing_keys)
    }

    /// How far an operation is.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn get_key_operation(&self, operation_id: &str) -> Result<KeyOperation, ClientError> {
        let request = GetKeyOperationRequest {
            operation_id: operation_id.to_owned(),
        };
        let get = || async { self.key_service().get_key_operation(request.clone()).await };
        operation(self.usual_patience().run(get).await?.into_inner().operation)
    }

    /// One page of operations, newest first.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn list_key_operations(
        &self,
        request: ListKeyOperationsRequest,
    ) -> Result<ListKeyOperationsResponse, ClientError> {
        let list = || async { self.key_service().list_key_operations(request.clone()).await };
        Ok(self.usual_patience().run(list).await?.into_inner())
    }

    /// Asks after an operation until it has ended; `progress` is told each answer.
    ///
    /// Cancel safe: the operation goes on.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn key_operation_ended(
        &self,
        begun: KeyOperation,
        mut progress: impl FnMut(&KeyOperation),
    ) -> Result<KeyOperation, ClientError> {
        let mut now = begun;
        while now.state() == KeyOperationState::Running {
            progress(&now);
            tokio::time::sleep(ASK_EVERY).await;
            now = self.get_key_operation(&now.operation_id).await?;
        }
        Ok(now)
    }
}

fn operation(answered: Option<KeyOperation>) -> Result<KeyOperation, ClientError> {
    answered.ok_or(ClientError::Protocol("an answer without an operation"))
}
