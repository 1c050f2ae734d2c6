//! What a disk that the host lends saves over an image pushed through the tunnel: time to the first output of a container,
//! and bytes through the tunnel, which is what the second pod of an image costs its owner.

use anyhow::Context as _;
use postern_tests::{
    archive::ImageRecipe,
    relay::Relay,
    vm::{POD, Vm},
};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::figures::{Budget, Report, Samples};

/// Pairs of the two ways.
const PAIRS: usize = 5;
const REFERENCE: &str = "example.org/large:1";
/// Of one file in the image, which does not compress.
const BYTES: usize = 56 << 20;

/// One way into the pod.
#[derive(Default)]
struct Way {
    time: Samples,
    bytes: Samples,
}

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    report.section("an image of 58 MB, pushed and on a disk (one pod of 384 MiB; pairs in turn, one run)");
    let vm = Vm::none()?;
    let [archive, disk] = ["image.tar", "image.disk"].map(|name| vm.home.root().join(name));
    let (archive, disk) = (archive.display().to_string(), disk.display().to_string());
    let mut content = vec![0; BYTES];
    SystemRandom::new().fill(&mut content).ok().context("no random bytes")?;
    let recipe = ImageRecipe {
        files: vec![("data/large".into(), content, 0o644)],
        user: "0:0".into(),
        ..ImageRecipe::busybox(REFERENCE)
    };
    recipe.write_oci_archive(archive.as_ref())?;
    let mut packing = Samples::default();
    packing.time(|| vm.ok(&["image", "pack", &archive, "--to", &disk]))?;
    vm.try_boot(&["--memory", "384M", "--image-disk", &disk])?.ok()?;
    let relay = tapped(&vm)?;
    let (mut pushed, mut lent) = (Way::default(), Way::default());
    let disk = format!("disk:{disk}");
    for _ in 0..PAIRS {
        for (way, source) in [(&mut pushed, archive.as_str()), (&mut lent, disk.as_str())] {
            vm.ok(&["image", "rm", POD, REFERENCE])?;
            let before = relay.carried();
            way.time.time(|| {
                vm.ok(&["image", "push", POD, source])?;
                vm.ok(&["run", "--rm", POD, REFERENCE, "--", "head", "-c", "1", "/data/large"])
            })?;
            way.bytes.push((relay.carried() - before) as f64 / 1024.0);
        }
    }
    report.samples("packing it, once", "ms", &packing, Budget::None);
    report.samples("to the first output, pushed", "ms", &pushed.time, Budget::None);
    report.samples("to the first output, on a disk", "ms", &lent.time, Budget::None);
    let ratio = lent.time.median() / pushed.time.median();
    report.value("  on a disk / pushed", "", ratio, Budget::AtMost(0.5));
    report.samples("through the tunnel, pushed", "KiB", &pushed.bytes, Budget::None);
    report.samples("through the tunnel, on a disk", "KiB", &lent.bytes, Budget::AtMost(64.0));
    Ok(())
}

/// The pod's owner reaches it through a relay from now on.
fn tapped(vm: &Vm) -> anyhow::Result<Relay> {
    let record = vm.home.root().join("state/postern/pods").join(POD).join("pod.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&record)?)?;
    let endpoint = json["endpoint"].as_str().and_then(|endpoint| endpoint.strip_prefix("tcp://"));
    let relay = Relay::to(endpoint.context("pod.json has no TCP endpoint")?.parse()?)?;
    json["endpoint"] = format!("tcp://{}", relay.address()).into();
    std::fs::write(&record, json.to_string())?;
    Ok(relay)
}
