//! `GetCertificate`: a certificate is asked for by erasure and stage, and handed out as it was signed.

use std::sync::Arc;

use crate::{
    domain::ids::{ErasureId, TenantId},
    grpc::convert::{Path, required},
    proto::v1::{self, GetCertificateRequest, GetCertificateResponse},
    vault::{CertificateStage, Error, Vault},
};

const ERASURE: Path<'static> = Path::root("erasure_id");
const STAGE: Path<'static> = Path::root("stage");

/// The certificate that a request asks for; `tenant` is in the caller's scope.
pub(in crate::grpc) async fn get_certificate(
    vault: &Arc<Vault>,
    tenant: &TenantId,
    asked: &GetCertificateRequest,
) -> Result<GetCertificateResponse, Error> {
    let (erasure, stage) = certificate_of(asked)?;
    let (stage, certificate) = vault.certificate(tenant, &erasure, stage).await?;
    let stage = match stage {
        CertificateStage::Effective => v1::CertificateStage::Effective,
        CertificateStage::Final => v1::CertificateStage::Final,
    };
    Ok(GetCertificateResponse {
        stage: stage.into(),
        certificate,
    })
}

/// What a request asks for; no stage is the last one that was reached.
pub(in crate::grpc) fn certificate_of(
    asked: &GetCertificateRequest,
) -> Result<(ErasureId, Option<CertificateStage>), Error> {
    let stage = match v1::CertificateStage::try_from(asked.stage) {
        Ok(v1::CertificateStage::Unspecified) => None,
        Ok(v1::CertificateStage::Effective) => Some(CertificateStage::Effective),
        Ok(v1::CertificateStage::Final) => Some(CertificateStage::Final),
        Err(_) => return Err(STAGE.refuse("must be one of the known values")),
    };
    Ok((required(&asked.erasure_id, &ERASURE)?, stage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_and_an_erasure_are_parsed_or_refused() {
        let asked = |erasure_id: &str, stage| GetCertificateRequest {
            tenant_id: "dev".to_owned(),
            erasure_id: erasure_id.to_owned(),
            stage,
        };
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let parsed = |stage| certificate_of(&asked(id, stage)).map(|(_, stage)| stage);
        assert_eq!(parsed(0).unwrap(), None);
        assert_eq!(parsed(1).unwrap(), Some(CertificateStage::Effective));
        assert_eq!(parsed(2).unwrap(), Some(CertificateStage::Final));
        assert_eq!(parsed(3).unwrap_err().field.as_deref(), Some("stage"));
        let refused = certificate_of(&asked("", 1)).unwrap_err();
        assert_eq!(refused.field.as_deref(), Some("erasure_id"));
    }
}
