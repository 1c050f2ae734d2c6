//! docs/applications.md: what each application adds to the base, and what its kernel and its pod measure.

use std::fmt::Write as _;

use anyhow::Context as _;
use serde_json::Value;

use crate::{
    cache, options, programs,
    recipe::{Application, List},
};

const HEAD: &str = "\
# Applications and their kernels

A pod's kernel can be specialised to what runs in it. `postern-image profile derive` runs an image's own program and a
client's check under trace, in name spaces of their own, and says which kernel options they ask for and why; the rules
are in [image/kernel/rules.toml](../image/kernel/rules.toml). What the base profile lacks becomes the application's
profile in [image/kernel/applications](../image/kernel/applications/).

A trace sees the paths that were taken. The profile `general` is the floor for what is not known; a narrower kernel is
the owner's explicit choice. An image says what it needs by the label `org.postern.kernel-options`, which `derive`
prints; a pod whose kernel lacks one of them refuses to start the container and names the option, and
`postern-image profile check` says it before there is a pod.

The ten below are Debian's packages, made into images by `postern-applications`, which also writes this page. The client's check of each
is in [applications.toml](../tests/applications/applications.toml). Times are of one run under emulation (TCG) on two
busy cores: *boot* is `pod create` to the attested tunnel, *ready* from `run` to a check that succeeds.

| application | options beyond the base | kernel =y | kernel MB | image MB | boot s | ready s |
|---|---|---|---|---|---|---|
";

pub(crate) fn write(list: &List) -> anyhow::Result<()> {
    let mut text = HEAD.to_owned();
    for one in &list.applications {
        row(&mut text, one)?;
    }
    text.push_str("\n## What needs each option\n\n");
    for one in &list.applications {
        let path = crate::profile(one);
        let table: toml::Table = toml::from_str(&std::fs::read_to_string(&path)?)?;
        let _ = writeln!(text, "**{}**\n", one.name);
        let groups = table.get("options").and_then(toml::Value::as_table);
        for (option, setting) in
            groups.into_iter().flat_map(toml::Table::values).filter_map(toml::Value::as_table).flatten()
        {
            let why = setting.get("why").and_then(toml::Value::as_str).unwrap_or_default();
            let _ = writeln!(text, "- `{option}`: {why}");
        }
        text.push('\n');
    }
    let text = text.trim_end().to_owned() + "\n";
    let path = programs::root().join("docs/applications.md");
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

fn row(text: &mut String, one: &Application) -> anyhow::Result<()> {
    let path = cache()?.join(format!("{}.pod.json", one.name));
    let measured: Value = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(_) => Value::Null,
    };
    let number = |key: &str| measured.get(key).and_then(Value::as_f64);
    let megabytes = |key: &str| number(key).map_or("not run".into(), |bytes| format!("{:.1}", bytes / 1e6));
    let seconds = |key: &str| number(key).map_or("not run".into(), |seconds| format!("{seconds:.1}"));
    let size = std::fs::metadata(cache()?.join(format!("{}.tar", one.name)));
    let image = size.map_or("-".into(), |there| format!("{:.1}", there.len() as f64 / 1e6));
    let count = number("kernel_options").map_or("not run".into(), |count| count.to_string());
    let names = options(one)?.join(" ");
    let _ = writeln!(
        text,
        "| {} | {names} | {count} | {} | {image} | {} | {} |",
        one.name,
        megabytes("kernel_bytes"),
        seconds("boot"),
        seconds("check"),
    );
    Ok(())
}
