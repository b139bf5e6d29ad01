//! Compiles the protobuf files in pure Rust, so that no `protoc` is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

/// The public API: described by reflection.
const API: &str = "proto/callvault/v1";
/// What lies in buckets and indexes: never described by reflection.
const STORAGE: &str = "proto/callvault/storage/v1";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let api = protox::compile(protos(API)?, ["proto"])?;
    fs::write(out.join("api.fds"), api.encode_to_vec())?;
    let mut config = prost_build::Config::new();
    config
        .bytes(["."])
        .enable_type_names()
        .extern_path(".google.rpc", "::tonic_types::pb");
    tonic_prost_build::configure()
        .codec_path("crate::grpc::codec::StrictCodec")
        .compile_fds_with_config(api, config)?;

    let storage = protox::compile(protos(STORAGE)?, ["proto"])?;
    let mut config = prost_build::Config::new();
    config.bytes(["."]).btree_map(["."]);
    for keyring in ["TenantKeyring", "RegionKeyring", "SigningKey"] {
        // They hold keys: bytes that zeroise.
        let message = format!(".callvault.storage.v1.{keyring}");
        config.extern_path(message, format!("crate::keys::keyring::{keyring}"));
    }
    config.compile_fds(storage)?;
    Ok(())
}

fn protos(dir: &str) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
