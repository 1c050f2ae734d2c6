//! `cp` both ways, by docker's rules.

use std::fs;

use crate::rig::Pod;

#[test]
fn a_tree_goes_in_and_comes_back() -> anyhow::Result<()> {
    let pod = Pod::with_container()?;
    let tree = pod.path("tree");
    fs::create_dir_all(tree.join("sub"))?;
    let data: Vec<u8> = (0..1_500_000u32).map(|at| (at.wrapping_mul(40_503) >> 7) as u8).collect();
    fs::write(tree.join("sub/data"), &data)?;
    fs::write(tree.join("script"), "#!/bin/sh\n")?;
    fs::set_permissions(tree.join("script"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    std::os::unix::fs::symlink("sub/data", tree.join("link"))?;
    // Into a directory that is there, and as one that is not.
    pod.ok(&["cp", "tree", "demo/web:/tmp"]);
    pod.ok(&["cp", "tree", "demo/web:/tmp/new"]);
    pod.ok(&["cp", "tree/.", "demo/web:/root"]);
    let script =
        "test -x /tmp/tree/script && test -L /tmp/new/link && cmp /tmp/new/link /root/sub/data && echo same";
    assert_eq!(pod.ok(&["exec", "demo/web", "sh", "-c", script]).text(), "same\n");
    pod.ok(&["cp", "demo/web:/tmp/tree", "back"]);
    assert_eq!(fs::read(pod.path("back/link"))?, data);
    assert_eq!(fs::read_link(pod.path("back/link"))?.to_str(), Some("sub/data"));
    pod.ok(&["cp", "demo/web:/tmp/tree", "back"]);
    assert!(pod.path("back/tree/script").exists(), "into a directory that is there now");
    Ok(())
}

#[test]
fn files_land_where_docker_would_put_them() -> anyhow::Result<()> {
    let pod = Pod::with_container()?;
    fs::write(pod.path("f"), "one")?;
    let cat = |path: &str| pod.ok(&["exec", "demo/web", "cat", path]).text();
    pod.ok(&["cp", "f", "demo/web:/tmp"]);
    pod.ok(&["cp", "f", "demo/web:/tmp/named"]);
    assert_eq!((cat("/tmp/f").as_str(), cat("/tmp/named").as_str()), ("one", "one"));
    fs::write(pod.path("f"), "two")?;
    pod.ok(&["cp", "f", "demo/web:/tmp/named"]);
    assert_eq!(cat("/tmp/named"), "two");
    let missing = pod.fails_with(6, &["cp", "f", "demo/web:/no/where"]);
    assert!(missing.stderr.contains("/no"), "{}", missing.stderr);
    pod.fails_with(6, &["cp", "f", "demo/web:/no/"]);
    pod.fails_with(6, &["cp", "no-such-file", "demo/web:/tmp"]);
    pod.fails_with(6, &["cp", "demo/web:/no-such-file", "x"]);
    pod.fails_with(6, &["cp", "f", "demo/none:/tmp"]);
    pod.fails_with(1, &["cp", "demo/web:/tmp/named", "no/where"]);
    pod.fails_with(1, &["cp", "demo/web:/tmp/named/", "x"]);
    pod.fails_with(2, &["cp", "f", "g"]);
    pod.ok(&["cp", "demo/web:/tmp/named", "back"]);
    assert_eq!(fs::read_to_string(pod.path("back"))?, "two");
    let leftovers: Vec<_> = fs::read_dir(pod.path(""))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(".postern"))
        .collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
    Ok(())
}

#[test]
fn a_tar_stream_is_a_side_of_its_own() -> anyhow::Result<()> {
    let pod = Pod::with_container()?;
    fs::create_dir(pod.path("conf"))?;
    fs::write(pod.path("conf/a"), "x")?;
    let said =
        pod.shell("tar c conf | postern cp -q - demo/web:/etc && postern cp demo/web:/etc/conf - | tar t");
    assert_eq!((said.text().as_str(), said.stderr.as_str()), ("conf\nconf/a\n", ""));
    Ok(())
}

#[test]
fn a_hostile_container_writes_nothing_outside() -> anyhow::Result<()> {
    let pod = Pod::with_container()?;
    let script = "mkdir -p /tmp/d && ln -s /etc/passwd /tmp/d/passwd && ln -s ../../.. /tmp/d/up && echo x >/tmp/d/good";
    pod.ok(&["exec", "demo/web", "sh", "-c", script]);
    fs::create_dir(pod.path("here"))?;
    let said = pod.ok(&["cp", "demo/web:/tmp/d", "here"]);
    assert!(
        said.stderr.contains("left out: d/passwd") && said.stderr.contains("left out: d/up"),
        "{}",
        said.stderr
    );
    let names: Vec<_> = fs::read_dir(pod.path("here/d"))?.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["good"]);
    Ok(())
}
