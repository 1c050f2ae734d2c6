//! `postern image pack`: a disk of an image, which a host lends to pods and every pod checks for itself.

use std::{path::PathBuf, time::Duration};

use postern_model::ImageReference;
use serde_json::json;

use crate::{
    door::Owner,
    exit::Exit,
    failure::{Failure, OrFail},
    human,
    image::{self, ImageSource},
    launch::parse,
    output::{self, Format, FormatArg},
    process::signals,
    text,
};

/// How long a packing that was interrupted may take to notice.
const CLEANUP: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "SOURCE: oci:DIR[:TAG] · oci-archive:FILE · docker-archive:FILE · a path · - for an archive on standard input\n\nThe same image gives the same file. The host may keep, copy and lend it: a pod takes from it only what the root hash stands for, which it hears from you.\n\nExamples:\n  postern image pack oci:./web --to web.disk\n  postern image pack web.tar example.org/web:1\n  postern pod create demo --image-disk web.disk --accept-risk=simulated-tee"
)]
pub(crate) struct Args {
    /// The image on this machine
    #[arg(value_name = "SOURCE", value_parser = parse::<ImageSource>)]
    source: ImageSource,
    /// The name it has in pods; otherwise the one it brings
    #[arg(value_name = "REFERENCE", value_parser = reference)]
    reference: Option<String>,
    /// Write the disk here; otherwise below ~/.cache/postern/images, named by its root hash
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    #[command(flatten)]
    output: FormatArg,
}

/// Checked here, kept as it was typed.
fn reference(text: &str) -> Result<String, String> {
    parse::<ImageReference>(text).map(|_| text.to_owned())
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let Args { source, reference, to, output } = args;
    let home = owner.home.clone();
    let stop = image::Stop::default();
    let told = stop.clone();
    let mut packing = tokio::task::spawn_blocking(move || {
        image::pack(&home, &source, reference.as_deref(), to.as_deref(), &told)
    });
    let packed = tokio::select! {
        packed = &mut packing => packed,
        signal = signals::asked_to_end() => {
            stop.now();
            // A read of standard input may never end.
            let _ = tokio::time::timeout(CLEANUP, packing).await;
            return Err(Failure::interrupted(signal, "interrupted; nothing was packed"));
        }
    };
    let (packed, path) = packed.or_fail(|| "packing the image ended early".into())??;
    let root_hash = packed.disk.root_hash().to_hex();
    match output.format {
        Format::Json => output::json(&json!({
            "file": path,
            "root_hash": root_hash,
            "reference": packed.manifest.reference,
            "digest": packed.manifest.image,
            "data_bytes": packed.disk.data_bytes(),
        }))?,
        Format::Text => {
            let name = packed.manifest.reference.unwrap_or_else(|| packed.manifest.image.to_string());
            output::print(&format!(
                "{}  {}\nroot hash {root_hash}\n{}\nnext: postern pod create NAME --image-disk {}\n",
                text::clean(&name),
                human::size(packed.disk.data_bytes()),
                path.display(),
                path.display(),
            ))?;
        }
    }
    Ok(Exit::Done)
}
