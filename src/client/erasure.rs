//! The calls of `ErasureService`, but for its certificates.

use std::time::Duration;

use super::{Client, ClientError, retry::request_id};
use crate::proto::v1::{
    CancelErasureRequest, Erasure, GetErasureRequest, GetErasureResponse, GetSweepRequest,
    ListErasuresRequest, ListErasuresResponse, PreviewErasureRequest, PreviewErasureResponse,
    RequestErasureRequest, RunSweepRequest, Sweep, SweepState,
};

/// How often a sweep is asked after.
const ASK_EVERY: Duration = Duration::from_millis(100);

impl Client {
    /// Says what an erasure would cover, and what stands in its way.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn preview_erasure(
        &self,
        request: PreviewErasureRequest,
    ) -> Result<PreviewErasureResponse, ClientError> {
        let preview = || async { self.erasure_service().preview_erasure(request.clone()).await };
        Ok(self.usual_patience().run(preview).await?.into_inner())
    }

    /// Erases: what is covered is cut off when this returns, and shredded when its grace has passed.
    ///
    /// Cancel safe: the vault goes on. Repeat it with the same `request_id` to learn what became of it.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn request_erasure(&self, mut request: RequestErasureRequest) -> Result<Erasure, ClientError> {
        request.request_id = request_id(request.request_id);
        let erase = || async { self.erasure_service().request_erasure(request.clone()).await };
        erasure(self.usual_patience().run(erase).await?.into_inner().erasure)
    }

    /// Takes an erasure back within its grace.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn cancel_erasure(&self, tenant_id: &str, erasure_id: &str) -> Result<Erasure, ClientError> {
        let request = CancelErasureRequest {
            tenant_id: tenant_id.to_owned(),
            erasure_id: erasure_id.to_owned(),
        };
        let cancel = || async { self.erasure_service().cancel_erasure(request.clone()).await };
        erasure(self.usual_patience().run(cancel).await?.into_inner().erasure)
    }

    /// How far an erasure is, and what the store has not deleted yet.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn get_erasure(
        &self,
        tenant_id: &str,
        erasure_id: &str,
    ) -> Result<GetErasureResponse, ClientError> {
        let request = GetErasureRequest {
            tenant_id: tenant_id.to_owned(),
            erasure_id: erasure_id.to_owned(),
        };
        let get = || async { self.erasure_service().get_erasure(request.clone()).await };
        Ok(self.usual_patience().run(get).await?.into_inner())
    }

    /// One page of a tenant's erasures, newest first.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn list_erasures(
        &self,
        request: ListErasuresRequest,
    ) -> Result<ListErasuresResponse, ClientError> {
        let list = || async { self.erasure_service().list_erasures(request.clone()).await };
        Ok(self.usual_patience().run(list).await?.into_inner())
    }

    /// Begins a sweep of the region; one that has not begun to work is returned instead.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn run_sweep(&self, mut request: RunSweepRequest) -> Result<Sweep, ClientError> {
        request.request_id = request_id(request.request_id);
        let run = || async { self.erasure_service().run_sweep(request.clone()).await };
        sweep(self.usual_patience().run(run).await?.into_inner().sweep)
    }

    /// How far a sweep is.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn get_sweep(&self, sweep_id: &str) -> Result<Sweep, ClientError> {
        let request = GetSweepRequest {
            sweep_id: sweep_id.to_owned(),
        };
        let get = || async { self.erasure_service().get_sweep(request.clone()).await };
        sweep(self.usual_patience().run(get).await?.into_inner().sweep)
    }

    /// Asks after a sweep until it has ended; `progress` is told each answer.
    ///
    /// Cancel safe: the sweep goes on.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn sweep_ended(
        &self,
        begun: Sweep,
        mut progress: impl FnMut(&Sweep),
    ) -> Result<Sweep, ClientError> {
        let mut now = begun;
        while now.state() == SweepState::Running {
            progress(&now);
            tokio::time::sleep(ASK_EVERY).await;
            now = self.get_sweep(&now.sweep_id).await?;
        }
        Ok(now)
    }
}

fn erasure(answered: Option<Erasure>) -> Result<Erasure, ClientError> {
    answered.ok_or(ClientError::Protocol("an answer without an erasure"))
}

fn sweep(answered: Option<Sweep>) -> Result<Sweep, ClientError> {
    answered.ok_or(ClientError::Protocol("an answer without a sweep"))
}
