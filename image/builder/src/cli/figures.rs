//! `postern-image report`: how much of an image has to be trusted, figure by figure, and whether each keeps its budget.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;
use postern_builder::{
    build::Image,
    figures::{Budgets, CrateLines, Figures, Verdict},
};
use serde_json::json;

use crate::report::Report;

/// A figure is over its budget.
const OVER_BUDGET: u8 = 5;
/// Budgets of a workspace.
const BUDGETS: &str = "image/budgets.toml";
/// Crates that are named one by one for people; JSON has them all.
const SHOWN_CRATES: usize = 15;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  postern-image report image                                      what the image alone tells
  postern-image report image --sources .                          the agent's crates and every budget as well
  postern-image report image --sources . --output json | jq .figures

Exit codes: 0 within all budgets, 1 failed, 2 wrong use, 5 a figure is over its budget")]
pub(super) struct ReportCommand {
    /// Directory of the image
    directory: PathBuf,
    /// The workspace that the agent was built from: its crates, the kernel profiles, the budgets
    #[arg(long, value_name = "DIRECTORY")]
    sources: Option<PathBuf>,
    /// Hold the figures to this list of budgets [default: image/budgets.toml of the sources]
    #[arg(long, value_name = "FILE")]
    budgets: Option<PathBuf>,
}

impl ReportCommand {
    pub(super) fn run(&self) -> anyhow::Result<(Report, ExitCode)> {
        let image = Image::load(&self.directory).with_context(|| super::not_an_image(&self.directory))?;
        let figures = Figures::take(&self.directory, &image, self.sources.as_deref())?;
        let budgets = self.budgets.clone().or_else(|| self.sources.as_ref().map(|root| root.join(BUDGETS)));
        let verdicts = match &budgets {
            Some(path) => Budgets::read(path)?.hold(&figures)?,
            None => Vec::new(),
        };
        let mut code = ExitCode::SUCCESS;
        for complaint in verdicts.iter().filter_map(Verdict::complaint) {
            eprintln!("postern-image: {complaint}");
            code = ExitCode::from(OVER_BUDGET);
        }
        Ok((report(&self.directory, &figures, &verdicts), code))
    }
}

fn report(directory: &Path, figures: &Figures, verdicts: &[Verdict]) -> Report {
    let profile = figures.kernel_profile.as_deref().unwrap_or("a distribution's");
    let mut text =
        format!("image {}: kernel {} ({profile})\n\n", directory.display(), figures.kernel_release);
    let mut rows = Vec::new();
    let _ = writeln!(text, "{:<20} {:>10}  {:>10}", "FIGURE", "VALUE", "AT MOST");
    for (name, value) in figures.named() {
        let verdict = verdicts.iter().find(|verdict| verdict.figure == name);
        let shown = value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let limit = verdict.map_or_else(String::new, |verdict| verdict.at_most.to_string());
        let says = match verdict {
            Some(verdict) if verdict.is_exceeded() => "OVER",
            Some(_) if value.is_none() => "not told",
            Some(_) => "ok",
            None => "",
        };
        let _ = writeln!(text, "{}", format!("{name:<20} {shown:>10}  {limit:>10}  {says}").trim_end());
        rows.push(json!({
            "figure": name,
            "value": value,
            "at_most": verdict.map(|verdict| verdict.at_most),
            "over": verdict.is_some_and(Verdict::is_exceeded),
            "reason": verdict.map(|verdict| &verdict.reason),
        }));
    }
    details(&mut text, figures);
    let json = json!({ "directory": directory, "figures": rows, "details": figures });
    Report { text, json }
}

fn details(text: &mut String, figures: &Figures) {
    if let Some(options) = &figures.kernel_options {
        let _ = writeln!(text, "\nkernel options that are built in, by group");
        for (group, count) in &options.groups {
            let _ = writeln!(text, "  {count:>5}  {group}");
        }
    }
    if let Some(drivers) = &figures.kernel_drivers {
        let _ = writeln!(text, "\ndrivers built in\n  {}", drivers.join(" "));
    }
    let _ = writeln!(text, "\nsockets that listen in the guest");
    for listener in &figures.listeners {
        let _ = writeln!(text, "  {} {:<6} {}", listener.family, listener.port, listener.what);
    }
    if let Some(crates) = &figures.crates {
        let linked: Vec<&CrateLines> = crates.iter().filter(|krate| krate.linked).collect();
        let _ = writeln!(text, "\nthe agent, by crate: lines of Rust, lines of C and assembly");
        for krate in linked.iter().take(SHOWN_CRATES) {
            let ours = if krate.ours { "  ours" } else { "" };
            let (lines, name, version) = (krate.lines, &krate.name, &krate.version);
            let _ = writeln!(text, "  {:>7} {:>7}  {name} {version}{ours}", lines.rust, lines.other);
        }
        let rest: u64 = linked.iter().skip(SHOWN_CRATES).map(|krate| krate.lines.all()).sum();
        let _ = writeln!(text, "  {rest:>15}  in {} more", linked.len().saturating_sub(SHOWN_CRATES));
    }
    if let Some(calls) = &figures.host_syscalls {
        let _ = writeln!(text, "\nsystem calls that QEMU makes on the host\n  {}", calls.join(" "));
    }
}
