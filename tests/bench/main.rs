//! `make bench`: figures as a table and as JSON. Every ratio has both of its sides in this one run, interleaved.

mod agent;
mod boot;
mod disk;
mod figures;
mod memory;
mod mitigations;
mod pool;
mod runtimes;
mod size;
mod tls;
mod usage;

use std::process::ExitCode;

use anyhow::{Context as _, bail};

use figures::Report;

const USAGE: &str = "usage: postern-bench [--json FILE] [size] [agent] [tunnel] [boot] [disk] [pool] [memory] [mitigations]   (no group: all)";
const GROUPS: [&str; 8] = ["size", "agent", "tunnel", "boot", "disk", "pool", "memory", "mitigations"];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("postern-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let mut json = None;
    let mut wanted = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => json = Some(words.next().context(USAGE)?),
            group if GROUPS.contains(&group) => wanted.push(group.to_owned()),
            _ => bail!("{USAGE}"),
        }
    }
    let want = |group: &str| wanted.is_empty() || wanted.iter().any(|name| name == group);
    let mut report = Report::default();
    println!("  {:<52} {:>10} {:<7} {:<24} {:<10}", "figure", "median", "unit", "spread", "budget");
    if want("size") {
        size::run(&mut report)?;
    }
    if want("agent") {
        agent::run(&mut report)?;
    }
    if want("tunnel") {
        agent::tunnel(&mut report)?;
    }
    if want("boot") {
        boot::run(&mut report)?;
    }
    if want("disk") {
        disk::run(&mut report)?;
    }
    if want("pool") {
        pool::run(&mut report)?;
    }
    if want("memory") {
        memory::run(&mut report)?;
    }
    if want("mitigations") {
        mitigations::run(&mut report)?;
    }
    let path = json
        .unwrap_or_else(|| postern_tests::programs::root().join("target/bench.json").display().to_string());
    std::fs::write(&path, serde_json::to_vec_pretty(&report.json())?)?;
    println!("\nas JSON: {path}");
    Ok(())
}
