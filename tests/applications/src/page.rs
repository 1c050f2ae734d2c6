//! docs/applications.md: what each application adds to the base, and what its kernel and its pod measure.

use std::fmt::Write as _;

use anyhow::Context as _;
use postern_tests::programs;

use crate::{
    options, reasons,
    recipe::{Application, List},
    record::{Kernel, Record, Unlabelled},
};

const HEAD: &str = "\
# Applications and their kernels

A pod's kernel can be specialised to what runs in it. `postern-image profile derive` runs an image's own program and a
client's check under trace, in name spaces of their own, and says which kernel options they ask for and why; the rules
are in [image/kernel/rules.toml](../image/kernel/rules.toml). What the base profile lacks becomes the application's
profile in [image/kernel/applications](../image/kernel/applications/).

```sh
postern-image profile derive --image redis.tar --run 'redis-cli ping' --write image/kernel/applications/redis.toml
postern-image kernel bless --profile redis          # resolve it; commit both files
postern-image kernel build --profile redis
postern-image build --profile redis --agent target/dist/bin/postern-agent --out redis-guest
postern-image profile check redis.tar --image-dir redis-guest
postern pod create cache --image-dir redis-guest --accept-risk=simulated-tee
```

A trace sees the paths that were taken. The profile `general` is the floor for what is not known; a narrower kernel is
the owner's explicit choice. An image says what it needs by the label `org.postern.kernel-options`, which `derive`
prints; a pod whose kernel lacks one of them refuses to start the container and names the option, and
`postern-image profile check` says it before there is a pod.
";

const TABLE: &str = "
## Ten applications of Debian

`postern-applications` makes an image of each from Debian's packages, derives its profile, runs it in pods, and writes this
page from [what it measured](../tests/applications/measured.json). The client's check of each is in
[applications.toml](../tests/applications/applications.toml).

One that has figures here has been seen to pass its check in a pod on its own kernel, where `profile check` had found
nothing wanting, and to be refused by a pod on the base, as `profile check` had said. Times are of one run under emulation
(TCG) on two busy cores: *boot* is `pod create` to the attested tunnel (median of three), *push* the image into the pod,
*ready* from `run` to a check that succeeds. *Used* is memory of the pod that is not available to others, image and all.

| application | options beyond the base | kernel =y | kernel MB | image MB | pod MiB | used MiB | boot s | push s | ready s |
|---|---|---|---|---|---|---|---|---|---|
";

const BASE_ALONE: &str = "
## On the base alone

What a pod on the base says of each image, and what the same program does there when its image has no label: a name that
the pod does not refuse is a failure that the program words in its own way, or none. An option is in a profile because
the program asks for it; some programs get along without, on the paths that the check takes.

| application | refused for | without the label |
|---|---|---|
";

pub(crate) fn write(list: &List) -> anyhow::Result<()> {
    let path = programs::root().join("docs/applications.md");
    let text = render(list, &Record::read()?)?;
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

/// The page: the same text from the same profiles and figures.
pub(crate) fn render(list: &List, record: &Record) -> anyhow::Result<String> {
    let mut text = HEAD.to_owned() + TABLE;
    for (profile, kernel) in &record.kernels {
        row(&mut text, &[&format!("(`{profile}`)"), ""], kernel, &["", "", ""], ["", ""]);
    }
    for one in &list.applications {
        application(&mut text, one, record)?;
    }
    if !record.applications.is_empty() {
        refusals(&mut text, list, record)?;
    }
    text.push_str("\n## What needs each option\n");
    for one in &list.applications {
        let _ = writeln!(text, "\n**{}**\n", one.name);
        for (option, why) in reasons(one)? {
            let _ = writeln!(text, "- `{option}`: {why}");
        }
    }
    Ok(text)
}

fn refusals(text: &mut String, list: &List, record: &Record) -> anyhow::Result<()> {
    text.push_str(BASE_ALONE);
    for one in &list.applications {
        let Some(measured) = record.applications.get(&one.name) else { continue };
        let named = options(one)?.into_iter().filter(|option| measured.refusal.contains(option.as_str()));
        let without = match &measured.unlabelled {
            Unlabelled::Works => "the check succeeds all the same".to_owned(),
            Unlabelled::Fails(words) => format!("`{}`", words.replace('|', "\\|").replace('`', "'")),
        };
        let _ = writeln!(text, "| {} | {} | {without} |", one.name, named.collect::<Vec<_>>().join(" "));
    }
    if let Some(measured) = record.applications.values().next() {
        let _ = writeln!(text, "\nIts words:\n\n```\n{}\n```", measured.refusal);
    }
    Ok(())
}

fn application(text: &mut String, one: &Application, record: &Record) -> anyhow::Result<()> {
    let names = options(one)?.join(" ");
    let Some(measured) = record.applications.get(&one.name) else {
        let _ = writeln!(text, "| {} | {names} | not run | | | | | | | |", one.name);
        return Ok(());
    };
    let image = megabytes(measured.image_bytes);
    let sizes = [image.as_str(), &measured.pod_mib.to_string(), &measured.used_mib.to_string()];
    let times = [format!("{:.1}", measured.push_seconds), format!("{:.1}", measured.ready_seconds)];
    row(text, &[&one.name, &names], &measured.kernel, &sizes, [&times[0], &times[1]]);
    Ok(())
}

fn row(text: &mut String, names: &[&str; 2], kernel: &Kernel, sizes: &[&str; 3], times: [&str; 2]) {
    let ([name, options], [image, pod, used], [push, ready]) = (names, sizes, times);
    let (count, size) = (kernel.options, kernel.bytes as f64 / 1e6);
    let boot = kernel.boot_seconds;
    let _ = writeln!(
        text,
        "| {name} | {options} | {count} | {size:.2} | {image} | {pod} | {used} | {boot:.1} | {push} | {ready} |"
    );
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}
