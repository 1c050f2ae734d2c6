//! Compiles the .proto files without an external protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let owner = protox::compile(["owner.proto"], ["proto"])?;
    let mut config = tonic_prost_build::Config::new();
    config.bytes([
        ".postern.v1.ProcessInput.stdin",
        ".postern.v1.ProcessOutput.stdout",
        ".postern.v1.ProcessOutput.stderr",
        ".postern.v1.CopyInRequest.data",
        ".postern.v1.CopyOutResponse.data",
        ".postern.v1.PushRequest.data",
        ".postern.v1.PortForwardRequest.data",
        ".postern.v1.PortForwardResponse.data",
        ".postern.v1.LogsResponse.data",
    ]);
    tonic_prost_build::configure().compile_fds_with_config(owner, config)?;
    let host = protox::compile(["host.proto"], ["proto"])?;
    prost_build::Config::new().compile_fds(host)?;
    Ok(())
}
