//! `postern trust`: roots and reference values.

use std::path::PathBuf;

use postern_evidence::{RootKind, TrustedRoots};
use serde_json::json;

use crate::{
    cli::Risk,
    door::Owner,
    exit::Exit,
    failure::{Failure, OrFail},
    launch::{self, ShapeArgs},
    output::{self, Format, FormatArg, Table},
    trust::{self, Entry, TrustStore},
};

#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List what is trusted
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  postern trust ls\n  postern trust ls --output json"
    )]
    Ls(FormatArg),
    /// Trust the root of a simulated platform, or a measurement
    Add(AddArgs),
    /// Trust something no more
    #[command(after_help = "Examples:\n  postern trust rm web-image")]
    Rm {
        /// Name of the entry
        name: String,
    },
}

#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct AddArgs {
    #[command(subcommand)]
    what: Addition,
}

#[derive(Debug, clap::Subcommand)]
enum Addition {
    /// The root certificate of a simulated platform
    #[command(
        after_help = "A simulated root protects nothing; AMD's roots are built in.\n\nExamples:\n  postern trust add root lab --file lab-root.pem --accept-risk=simulated-tee"
    )]
    Root {
        /// Name of the entry
        name: String,
        /// The root certificate, PEM
        #[arg(long, value_name = "PEM")]
        file: PathBuf,
        /// Accept a risk by name: simulated-tee
        #[arg(long, value_name = "RISK", value_enum)]
        accept_risk: Vec<Risk>,
    },
    /// A measurement that pods may have
    #[command(
        after_help = "Examples:\n  postern trust add measurement web-image --image-dir ./image --cpus 2 --memory 512M\n  postern trust add measurement web-image --digest 7c41…"
    )]
    Measurement {
        /// Name of the entry
        name: String,
        /// Compute it from this guest image and the shape of the pod
        #[arg(long, value_name = "DIR", required_unless_present = "digest", conflicts_with = "digest")]
        image_dir: Option<PathBuf>,
        /// The measurement itself: 96 hexadecimal digits
        #[arg(long, value_name = "HEX")]
        digest: Option<String>,
        #[command(flatten)]
        shape: ShapeArgs,
    },
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    match args.verb {
        Verb::Ls(FormatArg { format }) => list(owner, format)?,
        Verb::Add(AddArgs { what }) => add(owner, what)?,
        Verb::Rm { name } => {
            trust::remove(&owner.home, &name)?;
            output::line(&name)?;
        }
    }
    Ok(Exit::Done)
}

fn add(owner: &Owner, what: Addition) -> Result<(), Failure> {
    match what {
        Addition::Root { name, file, accept_risk } => {
            if !accept_risk.contains(&Risk::SimulatedTee) {
                return Err(simulated_risk("trust a simulated root"));
            }
            let pem = std::fs::read_to_string(&file).or_fail(|| format!("cannot read {}", file.display()))?;
            trust::add(&owner.home, &name, &Entry::SimulatedRoot { pem })?;
            output::line(&format!(
                "{name}: SIMULATED root, protects nothing; pods use it only when created or added with --accept-risk=simulated-tee"
            ))
        }
        Addition::Measurement { name, image_dir, digest, shape } => {
            let measurement = match (image_dir, digest) {
                (Some(dir), _) => launch::measurement(&dir, &shape.shape()?)?.to_hex(),
                (None, digest) => digest.unwrap_or_default(),
            };
            trust::add(&owner.home, &name, &Entry::Measurement { measurement: measurement.clone() })?;
            output::line(&format!("{name}: measurement {measurement}"))
        }
    }
}

/// What has to be said before a simulated platform is accepted.
pub(super) fn simulated_risk(doing: &str) -> Failure {
    Failure::usage(format!("refusing to {doing} without your word"))
        .caused_by("a simulated platform is played in software: the host can read everything in the pod")
        .hint("to see how everything works all the same, add --accept-risk=simulated-tee")
}

fn list(owner: &Owner, format: Format) -> Result<(), Failure> {
    let store = TrustStore::load(&owner.home)?;
    let built_in = TrustedRoots::amd();
    let mut rows: Vec<(String, &str, String)> = built_in
        .iter()
        .filter(|root| root.kind() == RootKind::Amd)
        .map(|root| (root.name().to_owned(), "AMD root, built in", root.fingerprint().to_string()))
        .collect();
    for named in &store.entries {
        let value = match &named.entry {
            Entry::Measurement { measurement } => measurement.clone(),
            Entry::SimulatedRoot { pem } => {
                trust::simulated_root(&named.name, pem)?.fingerprint().to_string()
            }
        };
        rows.push((named.name.clone(), named.entry.kind(), value));
    }
    if format == Format::Json {
        let rows = rows.iter().map(|(name, kind, value)| json!({"name": name, "kind": kind, "value": value}));
        return output::json(&rows.collect::<Vec<_>>());
    }
    let mut table = Table::new(&["NAME", "KIND", "VALUE"]);
    rows.into_iter().for_each(|(name, kind, value)| table.row([name, kind.into(), value]));
    table.print()
}
