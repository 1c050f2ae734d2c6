//! `postern image verify`: is an image of the pod the one that was meant? Resolves a name in the pod's store and compares
//! digests.

use postern_api::owner::Image;
use postern_model::{ImageReference, PodName, Sha256};
use serde_json::json;

use super::ls::list;
use crate::{
    door::{Intent, Owner, Session},
    exit::Exit,
    failure::{Failure, OrFail},
    image::{ImageSource, LocalImage},
    launch::parse,
    output::{self, Format, FormatArg, mark},
    text,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ends with 0 when they are the same and 3 when they differ.\n\nExamples:\n  postern image verify demo busybox:latest --digest sha256:…\n  postern image verify demo web:1 --source oci:./web\n  postern image verify demo registry.example/web@sha256:…"
)]
pub(crate) struct Args {
    /// Name of the pod
    #[arg(value_name = "POD", value_parser = parse::<PodName>)]
    pod: PodName,
    /// The image in the pod, by reference; @sha256:… is compared
    #[arg(value_name = "REFERENCE", value_parser = parse::<ImageReference>)]
    reference: ImageReference,
    /// Compare with this digest, of the manifest or of the configuration
    #[arg(long, value_name = "DIGEST", value_parser = parse::<Sha256>, conflicts_with = "source")]
    digest: Option<Sha256>,
    /// Compare with this image of this machine
    #[arg(long, value_name = "SOURCE", value_parser = parse::<ImageSource>)]
    source: Option<ImageSource>,
    #[command(flatten)]
    output: FormatArg,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let expected = expected(&args)?;
    let session = Session::open(owner, &args.pod, Intent::Read).await?;
    let images = list(&session).await?;
    let found = resolve(&images, &args.reference).ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("no image {} in pod {}", args.reference, args.pod))
            .hint(format!("`postern image ls {}` lists them", args.pod))
    })?;
    let same = expected.iter().any(|digest| {
        let digest = digest.to_string();
        digest == found.digest || digest == found.config_digest
    });
    match args.output.format {
        Format::Json => output::json(&json!({
            "reference": found.reference,
            "digest": found.digest,
            "id": found.config_digest,
            "expected": expected.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "verified": same,
        }))?,
        Format::Text => output::line(&text_line(found, same))?,
    }
    match same {
        true => Ok(Exit::Done),
        false => {
            let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
            Err(Failure::new(Exit::NotVerified, format!("{} is another image", args.reference))
                .caused_by(format!("expected {}, found {}", expected.join(" or "), found.digest))
                .hint("push the image you mean, or pull it by digest"))
        }
    }
}

fn text_line(image: &Image, same: bool) -> String {
    format!(
        "{} {}",
        mark(same),
        text::clean(&format!("{}  {}  id {}", image.reference, image.digest, image.config_digest))
    )
}

/// The digests of which one has to be the image's.
fn expected(args: &Args) -> Result<Vec<Sha256>, Failure> {
    if let Some(source) = &args.source {
        source.check().or_fail(|| format!("cannot read image {source}"))?;
        let local = LocalImage::of(source).or_fail(|| format!("cannot read image {source}"))?;
        // A docker archive has no manifest of its own; the configuration names the layers by digest all the same.
        return Ok(vec![local.manifest.unwrap_or(local.config)]);
    }
    args.digest.or(args.reference.digest()).map(|digest| vec![digest]).ok_or_else(|| {
        Failure::usage("there is nothing to compare with")
            .hint("add --digest, --source, or @sha256:… to the reference")
    })
}

/// The image that a reference without its digest names.
fn resolve<'a>(images: &'a [Image], reference: &ImageReference) -> Option<&'a Image> {
    let named = |image: &&Image| {
        image.reference.parse::<ImageReference>().is_ok_and(|known| {
            (known.registry(), known.repository()) == (reference.registry(), reference.repository())
                && match (reference.tag(), reference.digest()) {
                    (Some(tag), _) => known.tag() == Some(tag),
                    (None, Some(digest)) => known.digest() == Some(digest),
                    (None, None) => false,
                }
        })
    };
    images.iter().find(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_resolved_with_dockers_defaults() {
        let image = |reference: &str| Image { reference: reference.into(), ..Default::default() };
        let images = [image("busybox:latest"), image("10.0.2.2:5000/job:1")];
        let resolved =
            |text: &str| resolve(&images, &text.parse().unwrap()).map(|image| image.reference.clone());
        assert_eq!(resolved("docker.io/library/busybox").as_deref(), Some("busybox:latest"));
        assert_eq!(resolved("10.0.2.2:5000/job:1").as_deref(), Some("10.0.2.2:5000/job:1"));
        assert_eq!(resolved("10.0.2.2:5000/job:2"), None);
    }
}
