//! `postern-applications`: Debian applications as images, their kernel profiles, and what they do in pods.
//!
//! `derive` makes each image and writes `image/kernel/applications/NAME.toml`; `pods` boots a pod on the kernel of that
//! profile and one on the base, runs the client's check in the first and sees the second refuse; `page` writes
//! docs/applications.md from what the two have measured.

mod page;
mod pods;
mod programs;
mod recipe;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail, ensure};

use recipe::{Application, List, chosen};

const USAGE: &str = "usage: postern-applications images|derive|pods|page [NAME...]   (no name: all)";

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
        "images" => applications.iter().try_for_each(|one| image(&list, one).map(|_| ())),
        "derive" => applications.iter().try_for_each(|one| derive(&list, one)),
        "pods" => applications.iter().try_for_each(|one| pods::run(&list, one)),
        "page" => page::write(&list),
        _ => bail!("{USAGE}"),
    }
}

/// Where images and figures are kept between runs.
pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    let folder = programs::root().join("target/applications");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

pub(crate) fn profile(one: &Application) -> PathBuf {
    programs::root().join("image/kernel/applications").join(format!("{}.toml", one.name))
}

/// The options that the committed profile of an application adds.
pub(crate) fn options(one: &Application) -> anyhow::Result<Vec<String>> {
    let path = profile(one);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let table: toml::Table = toml::from_str(&text)?;
    let groups = table.get("options").and_then(toml::Value::as_table);
    let options = groups.into_iter().flat_map(toml::Table::values).filter_map(toml::Value::as_table);
    Ok(options.flat_map(toml::Table::keys).cloned().collect())
}

/// The application's image, labelled with what its committed profile adds.
pub(crate) fn image(list: &List, one: &Application) -> anyhow::Result<PathBuf> {
    let path = cache()?.join(format!("{}.tar", one.name));
    let label = options(one).map(|options| options.join(" ")).ok();
    one.write(&list.suite, label.as_deref(), &path)?;
    println!("{}: {} ({} MB)", one.name, path.display(), std::fs::metadata(&path)?.len() / 1_000_000);
    Ok(path)
}

fn derive(list: &List, one: &Application) -> anyhow::Result<()> {
    let image = image(list, one)?;
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
    // Once more, with the label.
    one.write(&list.suite, Some(&options(one)?.join(" ")), &image)
}
