//! `postern trust`: roots and reference values.

use std::path::PathBuf;

use postern_evidence::{RootKind, TrustedRoots};
use postern_launch::Mitigations;
use postern_model::Measurement;
use serde_json::json;

use crate::{
    cli::{Risk, only},
    door::Owner,
    exit::Exit,
    failure::{Failure, OrFail},
    launch::{self, OWNERS, ShapeArgs},
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

const ADD_EXAMPLES: &str = "\
A simulated root protects nothing; AMD's roots are built in. Pods use a simulated root only when they are created or added
with --accept-risk=simulated-tee.

Examples:
  postern trust add --simulated lab-root.pem --accept-risk=simulated-tee
  postern trust add --image-dir ./image --cpus 2 --memory 512M --name web-image
  postern trust add --measurement 7c41…";

#[derive(Debug, clap::Args)]
#[command(after_help = ADD_EXAMPLES)]
#[group(id = "what", required = true, multiple = false, args = ["simulated", "measurement", "image_dir"])]
struct AddArgs {
    /// Trust the root certificate (PEM) of a simulated platform
    #[arg(long, value_name = "PEM")]
    simulated: Option<PathBuf>,
    /// Trust this measurement: 96 hexadecimal digits
    #[arg(long, value_name = "HEX", value_parser = Measurement::from_hex)]
    measurement: Option<Measurement>,
    /// Trust the measurement of this guest image, launched in the shape given beside it
    #[arg(long, value_name = "DIR")]
    image_dir: Option<PathBuf>,
    /// Name of the entry; made up when left out
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    shape: ShapeArgs,
    /// Accept a risk by name: simulated-tee, or mitigations-off with --mitigations=off
    #[arg(long, value_name = "RISK", value_parser = only([Risk::SimulatedTee, Risk::MitigationsOff]))]
    accept_risk: Vec<Risk>,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    match args.verb {
        Verb::Ls(FormatArg { format }) => list(owner, format)?,
        Verb::Add(args) => add(owner, args)?,
        Verb::Rm { name } => {
            trust::remove(&owner.home, &name)?;
            output::line(&name)?;
        }
    }
    Ok(Exit::Done)
}

fn add(owner: &Owner, args: AddArgs) -> Result<(), Failure> {
    let named = |made_up: String| args.name.clone().unwrap_or(made_up);
    if let Some(file) = &args.simulated {
        if !args.accept_risk.contains(&Risk::SimulatedTee) {
            return Err(simulated_risk("trust a simulated root"));
        }
        let pem = std::fs::read_to_string(file).or_fail(|| format!("cannot read {}", file.display()))?;
        let name = named(trust::made_up_name(&trust::simulated_root(&file.display().to_string(), &pem)?));
        trust::add(&owner.home, &name, &Entry::SimulatedRoot { pem })?;
        return output::line(&format!("{name}: SIMULATED root, protects nothing"));
    }
    let (measurement, mitigations) = match &args.image_dir {
        Some(dir) => {
            let shape = args.shape.shape()?;
            launch::accept_mitigations(shape.mitigations, OWNERS, &args.accept_risk)?;
            (launch::measurement(dir, &shape)?.to_hex(), Some(shape.mitigations))
        }
        None => (args.measurement.map(|measurement| measurement.to_hex()).unwrap_or_default(), None),
    };
    let name = named(format!("measurement-{}", measurement.get(..8).unwrap_or_default()));
    trust::add(&owner.home, &name, &Entry::Measurement { measurement: measurement.clone(), mitigations })?;
    output::line(&format!("{name}: measurement {measurement}"))
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
            Entry::Measurement { measurement, mitigations: Some(Mitigations::Off) } => {
                format!("{measurement} (mitigations off)")
            }
            Entry::Measurement { measurement, .. } => measurement.clone(),
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
