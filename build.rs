//! Compiles `proto/` into the gRPC types, with protox: no protoc to install.

use std::error::Error;
use std::path::{Path, PathBuf};

use protox::Compiler;

/// Relative to the manifest, so that the generated code does not depend on where the source lies.
const ROOT: &str = "proto";
const PACKAGE: &str = "proto/gitmoor/v1";

/// Messages that hold a token, or a URL that may hold one: `src/proto.rs` gives them a `Debug` that hides it.
const HAND_WRITTEN_DEBUG: [&str; 11] = [
    ".gitmoor.v1.Connection",
    ".gitmoor.v1.PersonalAccessToken",
    ".gitmoor.v1.EmailApiToken",
    ".gitmoor.v1.ResourceToken",
    ".gitmoor.v1.LookupRepositoryRequest",
    ".gitmoor.v1.RepositoryLink",
    ".gitmoor.v1.CreateRepositoryLinkRequest",
    ".gitmoor.v1.FindConnectionsRequest",
    ".gitmoor.v1.GenerateGitCredentialResponse",
    ".gitmoor.v1.GetWebhookSetupResponse",
    ".gitmoor.v1.VerifyDeliveryRequest",
];

/// Types nested in those messages. `skip_debug` takes their `Debug` too, though nothing in them is secret.
const NESTED_DEBUG: [&str; 10] = [
    ".gitmoor.v1.Connection.Scope",
    ".gitmoor.v1.Connection.Tls",
    ".gitmoor.v1.Connection.RateLimit",
    ".gitmoor.v1.Connection.Hosting",
    ".gitmoor.v1.Connection.State",
    ".gitmoor.v1.ResourceToken.ResourceType",
    ".gitmoor.v1.RepositoryLink.ConnectionHistoryEntry",
    ".gitmoor.v1.RepositoryLink.State",
    ".gitmoor.v1.RepositoryLink.WebhookMode",
    ".gitmoor.v1.GenerateGitCredentialResponse.AuthScheme",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={ROOT}");

    let mut compiler = Compiler::new([ROOT])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(sources(Path::new(PACKAGE))?)?;

    #[expect(clippy::disallowed_methods, reason = "this is how cargo tells a build script its folder")]
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    // Encoded by protox and not by prost, which would drop the options of google.api.
    std::fs::write(out_dir.join("gitmoor_descriptor.bin"), compiler.encode_file_descriptor_set())?;
    // Ordered maps: the encoding of a request is what its request id and its page token are bound to.
    let mut generator = tonic_prost_build::configure().btree_map(".").skip_debug(HAND_WRITTEN_DEBUG);
    for path in NESTED_DEBUG {
        generator = generator.type_attribute(path, "#[derive(Debug)]");
    }
    generator.compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// The `.proto` files of one folder, sorted so that two builds are the same.
fn sources(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
