//! What a pod has to prove, and what happens when it does not.

use std::fs;

use crate::rig::{Pod, text};

#[test]
fn every_check_is_named_and_each_failure_has_its_code() -> anyhow::Result<()> {
    let pod = Pod::start()?;
    let said = pod.ok(&["pod", "verify", "demo"]);
    let checks = [
        "vendor chain",
        "TCB",
        "measurement",
        "host data",
        "key binding",
        "session binding",
        "this instance",
    ];
    for check in checks {
        assert!(said.text().contains(&format!("✓ {check}")), "{}", said.text());
    }
    assert!(said.text().contains("SIMULATED"));
    let json = pod.ok(&["pod", "verify", "demo", "--output", "json"]).json()?;
    assert_eq!((&json["verified"], &json["simulated"]), (&true.into(), &true.into()));

    // Each time one thing the owner expects is another than what is there.
    let path = pod.record("demo");
    let honest = fs::read_to_string(&path)?;
    let record: serde_json::Value = serde_json::from_str(&honest)?;
    let attempt = |code: i32, check: &str, change: &dyn Fn(&mut serde_json::Value)| -> anyhow::Result<()> {
        let mut changed = record.clone();
        change(&mut changed);
        fs::write(&path, serde_json::to_vec(&changed)?)?;
        let said = pod.fails_with(code, &["pod", "verify", "demo"]);
        assert!(said.text().contains(&format!("✗ {check}")), "{}", said.text());
        assert!(said.stderr.contains(check) && said.stderr.contains("hint: "), "{}", said.stderr);
        // No other verb sends anything to such a pod either.
        pod.fails_with(3, &["ps", "demo"]);
        pod.fails_with(125, &["exec", "demo/web", "true"]);
        Ok(())
    };
    attempt(10, "vendor chain", &|record| record["accepts_simulated"] = false.into())?;
    attempt(12, "measurement", &|record| record["measurements"] = vec!["00".repeat(48)].into())?;
    attempt(13, "host data", &|record| record["host_data"] = "00".repeat(32).into())?;
    attempt(16, "this instance", &|record| {
        record["instance"] = format!("sha256:{}", "00".repeat(32)).into()
    })?;
    fs::write(&path, &honest)?;
    fs::write(
        pod.path("config/postern/config.toml"),
        "minimum_tcb = \"boot_loader=3,tee=0,snp=99,microcode=1\"\n",
    )?;
    pod.fails_with(11, &["pod", "verify", "demo"]);
    fs::remove_file(pod.path("config/postern/config.toml"))?;
    pod.ok(&["pod", "verify", "demo"]);
    Ok(())
}

#[test]
fn a_simulated_platform_is_accepted_by_name_only() -> anyhow::Result<()> {
    let pod = Pod::start()?;
    let root = pod.root();
    let refused = pod.fails_with(2, &["trust", "add", "--simulated", text(&root)]);
    assert!(refused.stderr.contains("--accept-risk=simulated-tee"), "{}", refused.stderr);
    let init_data = pod.init_data();
    let endpoint = format!("tcp://{}", pod.address);
    // Its root is in the trust store, but this pod was not said to be on a simulated platform.
    pod.ok(&["pod", "add", "real", "--endpoint", &endpoint, "--init-data", text(&init_data)]);
    pod.fails_with(10, &["pod", "verify", "real"]);
    assert!(pod.ok(&["trust", "ls"]).text().contains("SIMULATED"));
    let refused = pod.fails_with(2, &["pod", "create", "x"]);
    assert!(refused.stderr.contains("--accept-risk=simulated-tee"), "{}", refused.stderr);
    Ok(())
}

#[test]
fn an_instance_is_remembered_from_the_first_contact() -> anyhow::Result<()> {
    let first = Pod::start()?;
    assert!(first.ok(&["pod", "verify", "demo"]).text().contains("first contact"));
    assert!(first.ok(&["pod", "verify", "demo"]).text().contains("as last time"));
    Ok(())
}
