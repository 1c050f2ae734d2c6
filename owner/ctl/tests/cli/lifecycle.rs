//! A container's life, as the owner sees and steers it.

use postern_tests::{home::Said, process::Guarded};

use crate::rig::{Pod, SOON};

fn state(said: &Said) -> String {
    said.json().expect("JSON")[0]["state"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn from_run_to_rm() -> anyhow::Result<()> {
    let pod = Pod::with_container()?;
    let inspect = || state(&pod.ok(&["inspect", "demo/web"]));
    assert_eq!(inspect(), "running");
    assert!(pod.ok(&["ps", "demo"]).text().contains("running"));
    pod.ok(&["pause", "demo/web"]);
    assert_eq!(inspect(), "paused");
    pod.ok(&["unpause", "demo/web"]);
    let top = pod.ok(&["top", "demo/web", "--output", "json"]).json()?;
    assert_eq!(top[0]["command"][0], "sh");
    let stats = pod.ok(&["stats", "demo/web", "--no-stream", "--output", "json"]).json()?;
    assert!(stats[0]["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{stats}");
    assert_eq!(pod.ok(&["stop", "demo/web"]).text(), "web\n");
    assert_eq!(pod.ok(&["wait", "demo/web"]).text(), "0\n");
    assert_eq!(inspect(), "exited");
    pod.fails_with(125, &["exec", "demo/web", "true"]);
    pod.ok(&["start", "demo/web"]);
    pod.ok(&["kill", "demo/web"]);
    assert_eq!(pod.ok(&["wait", "demo/web"]).text(), "137\n");
    pod.ok(&["start", "demo/web"]);
    pod.fails_with(1, &["rm", "demo/web"]);
    pod.ok(&["rm", "-f", "demo/web"]);
    assert_eq!(pod.ok(&["ps", "-a", "-q", "demo"]).text(), "");
    // Every one is tried, and the failure is told.
    let said = pod.fails_with(6, &["rm", "demo/a", "demo/b"]);
    assert!(said.stderr.contains("container a") && said.stderr.contains("container b"), "{}", said.stderr);
    Ok(())
}

#[test]
fn several_are_stopped_at_once() -> anyhow::Result<()> {
    let pod = Pod::with_image()?;
    // The first ends only after the second was told to.
    for (name, told) in [("first", "until [ -e /v/told ]; do sleep 0.01; done"), ("second", "touch /v/told")]
    {
        let script = format!("trap '{told}; exit 0' TERM; touch /v/{name}; while :; do sleep 0.1; done");
        pod.ok(&["run", "-d", "--name", name, "-v", "common:/v", "demo", "busybox", "sh", "-c", &script]);
        let begun = format!("until [ -e /v/{name} ]; do sleep 0.01; done");
        pod.ok(&["exec", &format!("demo/{name}"), "sh", "-c", &begun]);
    }
    assert_eq!(pod.ok(&["stop", "-t", "1h", "demo/first", "demo/second"]).text(), "first\nsecond\n");
    assert_eq!(pod.ok(&["wait", "demo/first", "demo/second"]).text(), "0\n0\n");
    Ok(())
}

#[test]
fn waiting_and_attaching_end_with_the_container() -> anyhow::Result<()> {
    let pod = Pod::with_image()?;
    pod.ok(&[
        "run",
        "-d",
        "-i",
        "--name",
        "job",
        "demo",
        "busybox",
        "sh",
        "-c",
        "read line; echo got $line; exit 9",
    ]);
    let mut waiting = Guarded::spawn(pod.command(&["wait", "demo/job"]).stdout(std::process::Stdio::null()))?;
    let said = pod.postern_with_input(&["attach", "demo/job"], b"it\n");
    assert_eq!((said.code, said.text().as_str()), (9, "got it\n"), "{}", said.stderr);
    assert!(waiting.wait(SOON)?.success());
    let again = pod.postern_with_input(&["start", "-a", "-i", "demo/job"], b"more\n");
    assert_eq!((again.code, again.text().as_str()), (9, "got more\n"), "{}", again.stderr);
    Ok(())
}

#[test]
fn everything_that_reads_speaks_json() -> anyhow::Result<()> {
    let pod = Pod::with_container()?;
    for args in [
        &["ps", "demo"][..],
        &["image", "ls", "demo"],
        &["inspect", "demo/web"],
        &["top", "demo/web"],
        &["stats", "--no-stream", "demo"],
        &["pod", "ls"],
        &["pod", "inspect", "demo"],
        &["pod", "verify", "demo"],
        &["trust", "ls"],
        &["audit", "demo"],
        &["version", "demo"],
    ] {
        let with_json: Vec<&str> = args.iter().copied().chain(["--output", "json"]).collect();
        let said = pod.ok(&with_json);
        assert!(said.json().is_ok(), "{args:?}: {}", said.text());
        assert!(!pod.ok(args).text().is_empty(), "{args:?}");
    }
    let inspected = pod.ok(&["pod", "inspect", "demo", "--output", "json"]).json()?;
    assert_eq!(inspected["pod"]["phase"], "owned");
    Ok(())
}

#[test]
fn a_port_of_the_pod_is_reached_from_here() -> anyhow::Result<()> {
    use std::io::{Read, Write};

    let pod = Pod::with_image()?;
    let script = "exec nc -ll -p 8080 -e cat";
    pod.ok(&["run", "-d", "--name", "echo", "demo", "busybox", "sh", "-c", script]);
    let mut command = pod.command(&["port-forward", "demo", ":8080"]);
    let mut forwarder =
        Guarded::spawn(command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()))?;
    let lines = postern_tests::process::Lines::of(forwarder.child().stdout.take().expect("piped"));
    let address = lines.find(SOON, |line| Some(line.split(' ').nth(1)?.to_owned()))?;
    // The listener in the pod comes up on its own time; a connection before that is closed without a byte.
    let end = std::time::Instant::now() + SOON;
    loop {
        let mut stream = std::net::TcpStream::connect(&address)?;
        stream.set_read_timeout(Some(SOON))?;
        let mut back = [0; 4];
        if stream.write_all(b"ping").is_ok() && stream.read_exact(&mut back).is_ok() {
            assert_eq!(&back, b"ping");
            break;
        }
        assert!(std::time::Instant::now() < end, "nothing came back");
    }
    Ok(())
}
