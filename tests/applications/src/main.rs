//! `postern-applications`: Debian applications as images, their kernel profiles, and what they do in pods.
//!
//! `derive` makes each image and writes `image/kernel/applications/NAME.toml`; `pods` boots a pod on the kernel of that
//! profile, where the client's check has to succeed, and one on the base, which has to refuse it, and keeps what it measured
//! in `tests/applications/measured.json`; `page` writes docs/applications.md from that.

mod guests;
mod page;
mod pods;
mod recipe;
mod record;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail, ensure};
use postern_tests::programs;

use recipe::{Application, List, chosen};

const USAGE: &str = "\
usage: postern-applications images|derive|pods|page [NAME...]   (no name: all)
  images   make the images from Debian's packages
  derive   trace each with its client's check and write its kernel profile
  pods     run each in a pod on its own kernel and on the base; the kernels have to be built:
           postern-image kernel build --profile base --profile general --profile NAME ...
  page     write docs/applications.md from what `pods` measured";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("postern-applications: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let verb = words.next().context(USAGE)?;
    let names: Vec<String> = words.collect();
    let list = List::read()?;
    let applications = chosen(&list, &names)?;
    match verb.as_str() {
        "images" => applications.iter().try_for_each(|one| image(&list, one, true).map(|_| ())),
        "derive" => applications.iter().try_for_each(|one| derive(&list, one)),
        "pods" => pods::all(&list, &applications),
        "page" => page::write(&list),
        _ => bail!("{USAGE}"),
    }
}

/// Where images and guests are kept between runs.
pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    let folder = programs::root().join("target/applications");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

pub(crate) fn profile(one: &Application) -> PathBuf {
    programs::root().join("image/kernel/applications").join(format!("{}.toml", one.name))
}

/// The options that the committed profile of an application adds, each with its reason.
pub(crate) fn reasons(one: &Application) -> anyhow::Result<Vec<(String, String)>> {
    let path = profile(one);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let table: toml::Table = toml::from_str(&text)?;
    let groups = table.get("options").and_then(toml::Value::as_table);
    let settings =
        groups.into_iter().flat_map(toml::Table::values).filter_map(toml::Value::as_table).flatten();
    let why = |setting: &toml::Value| {
        setting.get("why").and_then(toml::Value::as_str).unwrap_or_default().to_owned()
    };
    Ok(settings.map(|(option, setting)| (option.clone(), why(setting))).collect())
}

/// The options that the committed profile of an application adds.
pub(crate) fn options(one: &Application) -> anyhow::Result<Vec<String>> {
    Ok(reasons(one)?.into_iter().map(|(option, _)| option).collect())
}

/// The application's image, labelled with what its committed profile adds. Its packages are unpacked when they have not
/// been, or `anew`.
pub(crate) fn image(list: &List, one: &Application, anew: bool) -> anyhow::Result<PathBuf> {
    let path = cache()?.join(format!("{}.tar", one.name));
    let label = options(one).map(|options| options.join(" ")).ok();
    let layer = one.layer(&list.suite, &cache()?, anew)?;
    one.archive(&layer, &one.reference(), label.as_deref(), &path)?;
    println!("{}: {} ({} MB)", one.name, path.display(), std::fs::metadata(&path)?.len() / 1_000_000);
    Ok(path)
}

fn derive(list: &List, one: &Application) -> anyhow::Result<()> {
    let image = image(list, one, true)?;
    let summary = format!("Debian's {} beyond the base, as its client's check was traced", one.name);
    let output = Command::new(programs::program("postern-image")?)
        .args(["--output", "json", "profile", "derive", "--run", &one.check, "--summary", &summary])
        .arg("--image")
        .arg(&image)
        .arg("--write")
        .arg(profile(one))
        .args([Path::new("--profiles"), &programs::root().join("image/kernel")])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", one.name, said.trim());
    std::fs::write(cache()?.join(format!("{}.json", one.name)), &output.stdout)?;
    println!("{}: {}", one.name, options(one)?.join(" "));
    Ok(())
}

#[cfg(test)]
mod tests;
