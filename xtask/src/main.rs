//! The repository's own chores: `cargo xtask tidy` holds the rules that a compiler does not, `cargo xtask test` runs
//! every test and closes with one summary line, `cargo xtask bless` rewrites the committed lists that tidy compares.

mod test;
mod tidy;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let chore = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    let result = match chore.as_str() {
        "tidy" => root().and_then(|root| tidy::check(&root)),
        "bless" => root().and_then(|root| tidy::bless(&root)),
        "test" => root().and_then(|root| test::run(&root, &rest)),
        _ => Err(anyhow::anyhow!("usage: cargo xtask tidy | bless | test [cargo test arguments]")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's root folder: the parent of this crate's.
fn root() -> anyhow::Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`")?;
    match PathBuf::from(manifest).parent() {
        Some(root) => Ok(root.to_owned()),
        None => bail!("this crate stands in no workspace"),
    }
}
