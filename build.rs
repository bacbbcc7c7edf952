//! Compiles proto/ into Rust, and into the descriptor set that reflection serves, with no protoc on the machine.

use std::{env, error::Error, fs, path::PathBuf};

/// The messages that hold personal data.
const PERSONAL: [&str; 11] = [
    "dcams.storage.v1.Customer",
    "dcams.storage.v1.UpdateStatusRequest",
    "dcams.storage.v1.UpdateStatusResponse",
    "dcams.storage.v1.GetStatusRequest",
    "dcams.storage.v1.GetStatusResponse",
    "dcams.storage.v1.CreateOrUpdateCustomerRequest",
    "dcams.storage.v1.CreateOrUpdateCustomerResponse",
    "dcams.storage.v1.GetDocumentImagesRequest",
    "dcams.storage.v1.GetDocumentImagesResponse",
    "dcams.storage.v1.Documents",
    "dcams.storage.v1.EraseCustomerRequest",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/dcams");

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler
        .include_imports(true)
        .include_source_info(true) // the comments, so that `grpcurl describe` shows them
        .open_file("dcams/storage/v1/storage.proto")?;

    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    // Personal data is never printed by accident: these have no `Debug`.
    let mut config = tonic_prost_build::Config::new();
    config.skip_debug(PERSONAL);
    // Megabytes that are handed on without a copy.
    config.bytes([".dcams.storage.v1.Documents"]);
    tonic_prost_build::configure()
        .codec_path("crate::codec::Codec")
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    Ok(())
}
