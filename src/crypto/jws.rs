//! Signatures of others: JSON Web Signatures of identity providers (RFC 7518 section 3, RFC 8037), verified by ring.

use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};

use super::CryptoError;

/// An algorithm with a public key. There is none with a shared secret, and no `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JwsAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
    /// RSASSA-PKCS1-v1_5 with SHA-256; keys of 2,048 bits and more.
    Rs256,
    /// The same with SHA-384.
    Rs384,
    /// The same with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// The same with SHA-384.
    Ps384,
    /// The same with SHA-512.
    Ps512,
}

/// A public key as its JSON form has it, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwsKey<'a> {
    /// A point of a curve, uncompressed (RFC 7518 section 6.2), or Ed25519's 32 bytes (RFC 8037).
    Point(&'a [u8]),
    /// An RSA modulus and exponent, big endian (RFC 7518 section 6.3).
    Rsa {
        /// The modulus.
        modulus: &'a [u8],
        /// The exponent.
        exponent: &'a [u8],
    },
}

/// Verifies a signature.
///
/// # Errors
/// [`CryptoError::Unauthentic`] unless `signature` is the key's of `message`; also if the key is of another kind or size.
pub fn verify(
    algorithm: JwsAlgorithm,
    key: JwsKey<'_>,
    message: &[u8],
    signature: &[u8],
) -> Result<(), CryptoError> {
    use JwsAlgorithm as A;
    let rsa: &RsaParameters = match algorithm {
        A::Es256 => return verify_point(&ECDSA_P256_SHA256_FIXED, key, message, signature),
        A::Es384 => return verify_point(&ECDSA_P384_SHA384_FIXED, key, message, signature),
        A::EdDsa => return verify_point(&ED25519, key, message, signature),
        A::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        A::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        A::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        A::Ps256 => &RSA_PSS_2048_8192_SHA256,
        A::Ps384 => &RSA_PSS_2048_8192_SHA384,
        A::Ps512 => &RSA_PSS_2048_8192_SHA512,
    };
    let JwsKey::Rsa { modulus, exponent } = key else {
        return Err(CryptoError::Unauthentic);
    };
    let key = RsaPublicKeyComponents {
        n: modulus,
        e: exponent,
    };
    key.verify(rsa, message, signature)
        .map_err(|_| CryptoError::Unauthentic)
}

fn verify_point(
    algorithm: &'static dyn VerificationAlgorithm,
    key: JwsKey<'_>,
    message: &[u8],
    signature: &[u8],
) -> Result<(), CryptoError> {
    let JwsKey::Point(point) = key else {
        return Err(CryptoError::Unauthentic);
    };
    UnparsedPublicKey::new(algorithm, point)
        .verify(message, signature)
        .map_err(|_| CryptoError::Unauthentic)
}

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

    use super::*;

    fn decoded(text: &str) -> Vec<u8> {
        BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    /// RFC 7515 appendix A.3: ES256.
    #[test]
    fn verifies_what_the_rfc_signed_with_es256() {
        let message = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature =
            decoded("DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q");
        let point = [
            &[4][..],
            &decoded("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"),
            &decoded("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"),
        ]
        .concat();
        let check = |algorithm, message: &str| {
            verify(algorithm, JwsKey::Point(&point), message.as_bytes(), &signature)
        };
        check(JwsAlgorithm::Es256, message).unwrap();
        check(JwsAlgorithm::Es256, &message[1..]).unwrap_err();
        for other in [JwsAlgorithm::Es384, JwsAlgorithm::EdDsa, JwsAlgorithm::Rs256] {
            check(other, message).unwrap_err();
        }
    }

    /// RFC 8037 appendix A.4: Ed25519.
    #[test]
    fn verifies_what_the_rfc_signed_with_eddsa() {
        let message = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature =
            decoded("hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg");
        let key = decoded("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        verify(
            JwsAlgorithm::EdDsa,
            JwsKey::Point(&key),
            message.as_bytes(),
            &signature,
        )
        .unwrap();
    }

    /// RFC 7515 appendix A.2: RS256.
    #[test]
    fn verifies_what_the_rfc_signed_with_rs256() {
        let message = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = decoded(
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        );
        let modulus = decoded(
            "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
        );
        let key = JwsKey::Rsa {
            modulus: &modulus,
            exponent: &[1, 0, 1],
        };
        verify(JwsAlgorithm::Rs256, key, message.as_bytes(), &signature).unwrap();
        verify(JwsAlgorithm::Ps256, key, message.as_bytes(), &signature).unwrap_err();
        verify(JwsAlgorithm::Es256, key, message.as_bytes(), &signature).unwrap_err();
    }
}
