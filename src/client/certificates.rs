//! Certificates of erasure, as they were signed.

use super::{Client, ClientError};
use crate::proto::v1::{GetCertificateRequest, GetCertificateResponse};

impl Client {
    /// The signed certificate of a stage that an erasure has reached: of the last one when the request names none. Check it
    /// against keys that were published, with `callvault certificate verify` or by `docs/format.md`.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn get_certificate(
        &self,
        request: GetCertificateRequest,
    ) -> Result<GetCertificateResponse, ClientError> {
        let get = || async { self.erasure_service().get_certificate(request.clone()).await };
        Ok(self.usual_patience().run(get).await?.into_inner())
    }
}
