//! `image push` sends what the pod lacks, and nothing else.

use postern_tests::archive::ImageRecipe;

use crate::rig::{Pod, Wire, text};

/// More than documents, headers and a handshake take, and much less than the layer of busybox.
const LITTLE: u64 = 40_000;

/// How much crosses the wire while `work` runs.
fn cost(wire: &Wire, work: impl FnOnce()) -> u64 {
    let before = wire.sent();
    work();
    wire.sent() - before
}

#[test]
fn the_same_image_again_costs_next_to_nothing() -> anyhow::Result<()> {
    let pod = Pod::start()?;
    let wire = Wire::to(&pod)?;
    pod.add("wired", &format!("tcp://{}", wire.address));
    let archive = pod.archive()?;
    let size = std::fs::metadata(&archive)?.len();
    let first = cost(&wire, || drop(pod.ok(&["image", "push", "wired", text(&archive)])));
    assert!(first > size, "{first} bytes for an archive of {size}");
    let digest = pod.ok(&["image", "ls", "demo", "--output", "json"]).json()?[0]["digest"].clone();

    // By archive, by layout, by `run`, and under another name.
    let layout = pod.path("layout");
    std::fs::create_dir_all(&layout)?;
    tar::Archive::new(std::fs::File::open(&archive)?).unpack(&layout)?;
    let (archive, layout) = (text(&archive).to_owned(), format!("oci:{}", layout.display()));
    for args in [
        &["image", "push", "wired", &archive][..],
        &["image", "push", "wired", &layout],
        &["image", "push", "wired", &archive, "example.org/other:1"],
        &["run", "--rm", "wired", &archive, "true"],
    ] {
        let again = cost(&wire, || drop(pod.ok(args)));
        assert!(again < LITTLE, "{again} bytes for {args:?}");
    }
    let images = pod.ok(&["image", "ls", "demo", "--output", "json"]).json()?;
    assert!(
        images.as_array().is_some_and(|all| all.iter().all(|image| image["digest"] == digest)),
        "{images}"
    );
    assert_eq!(pod.ok(&["run", "--rm", "demo", "example.org/other:1", "echo", "whole"]).text(), "whole\n");

    // What was removed is sent again.
    pod.ok(&["image", "rm", "demo", digest.as_str().unwrap_or_default()]);
    let anew = cost(&wire, || drop(pod.ok(&["image", "push", "wired", &archive])));
    assert!(anew > size, "{anew} bytes for an archive of {size}");
    assert_eq!(pod.ok(&["run", "--rm", "demo", "busybox", "echo", "whole"]).text(), "whole\n");
    Ok(())
}

#[test]
fn a_docker_archive_has_the_digest_that_it_has_when_it_is_sent_whole() -> anyhow::Result<()> {
    let pod = Pod::start()?;
    let wire = Wire::to(&pod)?;
    pod.add("wired", &format!("tcp://{}", wire.address));
    let path = pod.path("docker.tar");
    ImageRecipe::busybox("dock:1").write_docker_archive(&path)?;
    let whole = std::fs::read(&path)?;
    let first = pod.postern_with_input(&["image", "push", "wired", "-"], &whole);
    assert_eq!(first.code, 0, "{}", first.stderr);
    for (args, name) in [
        (&["image", "push", "wired", text(&path)][..], "docker.io/library/dock:1"),
        (&["image", "push", "wired", text(&path), "example.org/other:2"], "example.org/other:2"),
    ] {
        let mut said = None;
        let again = cost(&wire, || said = Some(pod.ok(args)));
        assert!(again < LITTLE, "{again} bytes for {args:?}");
        let digest = |text: String| text.trim().rsplit_once('@').map(|(_, digest)| digest.to_owned());
        let said = said.map(|said| said.text()).unwrap_or_default();
        assert!(said.starts_with(name), "{said}");
        assert_eq!(digest(said), digest(first.text()));
    }
    assert_eq!(pod.ok(&["run", "--rm", "demo", "example.org/other:2", "echo", "whole"]).text(), "whole\n");
    Ok(())
}

#[test]
fn a_layer_of_other_content_is_sent() -> anyhow::Result<()> {
    let pod = Pod::with_image()?;
    let wire = Wire::to(&pod)?;
    pod.add("wired", &format!("tcp://{}", wire.address));
    let path = pod.path("other.tar");
    let mut recipe = ImageRecipe::busybox("busybox:latest");
    recipe.files.push(("etc/marker".into(), b"here".to_vec(), 0o644));
    recipe.write_oci_archive(&path)?;
    let size = std::fs::metadata(&path)?.len();
    let sent = cost(&wire, || drop(pod.ok(&["image", "push", "wired", text(&path)])));
    assert!(sent > size, "{sent} bytes for an archive of {size}");
    assert_eq!(pod.ok(&["run", "--rm", "demo", "busybox", "cat", "/etc/marker"]).text(), "here");
    Ok(())
}
