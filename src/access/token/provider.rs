//! What `jsonwebtoken` asks of cryptography, answered by ours: the crate's own engines would bring a second one.

use std::sync::Once;

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey,
    crypto::{CryptoProvider, JwkUtils, JwtSigner, JwtVerifier},
    errors::{Error, ErrorKind},
    signature::{self, Verifier},
};

use crate::crypto::jws::{self, JwsAlgorithm, JwsKey};

/// Installs it, once a process; whoever comes first, it is the same.
pub(super) fn install() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: no_signer,
        verifier_factory: verifier,
        jwk_utils: JwkUtils::new_unimplemented(),
    };
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A second one could only be this crate's, linked twice.
        let _ = PROVIDER.install_default();
    });
}

/// The algorithm, if it is one with a public key.
pub(super) fn algorithm(algorithm: Algorithm) -> Option<JwsAlgorithm> {
    use JwsAlgorithm as J;
    Some(match algorithm {
        Algorithm::ES256 => J::Es256,
        Algorithm::ES384 => J::Es384,
        Algorithm::EdDSA => J::EdDsa,
        Algorithm::RS256 => J::Rs256,
        Algorithm::RS384 => J::Rs384,
        Algorithm::RS512 => J::Rs512,
        Algorithm::PS256 => J::Ps256,
        Algorithm::PS384 => J::Ps384,
        Algorithm::PS512 => J::Ps512,
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => return None,
    })
}

struct Keyed {
    named: Algorithm,
    algorithm: JwsAlgorithm,
    key: DecodingKey,
}

impl Verifier<Vec<u8>> for Keyed {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let key = match self.key.kind() {
            DecodingKeyKind::SecretOrDer(point) => JwsKey::Point(point),
            DecodingKeyKind::RsaModulusExponent { n, e } => JwsKey::Rsa {
                modulus: n,
                exponent: e,
            },
        };
        jws::verify(self.algorithm, key, message, signature).map_err(signature::Error::from_source)
    }
}

impl JwtVerifier for Keyed {
    fn algorithm(&self) -> Algorithm {
        self.named
    }
}

fn verifier(named: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    let family = match named {
        Algorithm::ES256 | Algorithm::ES384 => AlgorithmFamily::Ec,
        Algorithm::EdDSA => AlgorithmFamily::Ed,
        _ => AlgorithmFamily::Rsa,
    };
    match algorithm(*named) {
        Some(algorithm) if key.family() == family => Ok(Box::new(Keyed {
            named: *named,
            algorithm,
            key: key.clone(),
        })),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

/// The vault issues no tokens.
fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(ErrorKind::InvalidAlgorithm.into())
}
