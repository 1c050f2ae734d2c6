//! Who gets a shell, as the shell itself decides it: whoever can reach its socket may claim to be a start, so what a start
//! of ours checks before it asks protects nobody. Each claim here is a true one with one thing wrong.

use postern_launch::{DiskFooter, Mitigations};
use postern_model::{ImageDisk, Sha256};
use postern_sandbox::tools::Tools;
use serde_json::json;

use super::*;

/// What a start of pod `demo` says to `shell`.
fn claim(rig: &Rig, shell: &ShellRecord) -> Value {
    json!({
        "tenant": {
            "name": "demo",
            "init_data": rig.init_data(),
            "deadline": { "secs": 3600, "nanos": 0 },
        },
        "image": rig.image(),
        "measurement": shell.measurement,
        "shape": shell.shape,
        "listen": "127.0.0.1:0",
        "vsock": "auto",
        "qemu": Tools::default().qemu().unwrap(),
        "vsock_helper": null,
    })
}

/// Says it to the pool's only shell; the answer, and the connection it came over.
fn say(pool: &Pool<'_>, claim: &Value) -> (Value, BufReader<UnixStream>) {
    let mut stream = UnixStream::connect(pool.shells()[0].directory().join("claim.sock")).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(format!("{claim}\n").as_bytes()).unwrap();
    let mut stream = BufReader::new(stream);
    let mut answer = String::new();
    stream.read_line(&mut answer).unwrap();
    (serde_json::from_str(&answer).unwrap(), stream)
}

#[test]
fn a_claim_with_one_thing_wrong_is_declined_and_the_true_one_is_not() {
    let rig = Rig::new(Guest::Silent);
    let mut pool = Pool::new(&rig, "1", &[]);
    pool.says("ready");
    let shell = pool.shell();
    let honest = claim(&rig, &shell);
    let mut shape = shell.shape;
    shape.mitigations = Mitigations::Off;
    let elsewhere = rig.root.join("elsewhere");
    for (field, wrong, why) in [
        ("shape", json!(shape), "its shape is another"),
        ("listen", json!("127.0.0.2:0"), "it listens elsewhere"),
        ("vsock", json!("kernel"), "other programs"),
        ("vsock_helper", json!("/bin/true"), "other programs"),
        ("qemu", json!("/bin/true"), "other programs"),
    ] {
        let mut claim = honest.clone();
        claim[field] = wrong;
        let (answer, _) = say(&pool, &claim);
        assert_eq!(answer["answer"], "declined", "{field}: {answer}");
        assert!(answer["why"].as_str().unwrap().contains(why), "{field}: {answer}");
    }
    let mut other_image = honest.clone();
    other_image["image"] = json!(elsewhere);
    // Of an image elsewhere nothing is known but what it measures: of the same bytes, it is the same.
    let measurement = other_image["measurement"].as_str().unwrap();
    let other = if measurement.starts_with('0') { "1" } else { "0" };
    other_image["measurement"] = json!(format!("{other}{}", &measurement[1..]));
    let (answer, _) = say(&pool, &other_image);
    assert!(answer["why"].as_str().unwrap().contains("its image is another"), "{answer}");

    assert_eq!(pool.shell(), shell);
    let (answer, connection) = say(&pool, &honest);
    assert_eq!(answer["answer"], "taken", "{answer}");
    assert_eq!(pool.says("claimed")["pod"], "demo");
    drop(connection);
    is_gone(qemu(&shell.children));
}

#[test]
fn of_two_that_stand_in_line_the_second_gets_no_answer() {
    let rig = Rig::new(Guest::Silent);
    let mut pool = Pool::new(&rig, "1", &[]);
    pool.says("ready");
    let shell = pool.shell();
    let supervisor = shell.supervisor.open().unwrap().unwrap();
    let socket = pool.shells()[0].directory().join("claim.sock");
    // Both claims are there before the shell looks at either.
    supervisor.signal(Signal::STOP).unwrap();
    let [mut first, mut second] = ["first", "second"].map(|name| {
        let mut claim = claim(&rig, &shell);
        claim["tenant"]["name"] = json!(name);
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(format!("{claim}\n").as_bytes()).unwrap();
        BufReader::new(stream)
    });
    supervisor.signal(Signal::CONT).unwrap();
    let mut answer = String::new();
    first.read_line(&mut answer).unwrap();
    assert!(answer.contains("taken"), "{answer}");
    assert_eq!(pool.says("claimed")["pod"], "first");
    // Its connection ends, or is reset.
    let mut answer = String::new();
    let _ = second.read_line(&mut answer);
    assert_eq!(answer, "");
    assert!(!rig.pod("second").exists());
    // And nobody can ask again where the shell has gone.
    assert!(!rig.pod("first").join("claim.sock").exists());
    drop(first);
    is_gone(qemu(&shell.children));
}

#[test]
fn a_claimer_that_says_nothing_holds_nobody_up() {
    let rig = Rig::new(Guest::Silent);
    let mut pool = Pool::new(&rig, "1", &[]);
    pool.says("ready");
    let shell = pool.shell();
    let silent = UnixStream::connect(pool.shells()[0].directory().join("claim.sock")).unwrap();
    let begun = started(&rig, "demo", &[]);
    assert_eq!(qemu(&pod(&rig, "demo").children), qemu(&shell.children));
    drop(silent);
    end(begun);
}

#[test]
fn a_claim_without_an_end_is_cut_off() {
    let rig = Rig::new(Guest::Silent);
    let mut pool = Pool::new(&rig, "1", &[]);
    pool.says("ready");
    let mut endless = UnixStream::connect(pool.shells()[0].directory().join("claim.sock")).unwrap();
    // Far more than lies in a socket: the shell has hung up.
    assert!(endless.write_all(&vec![b'x'; 64 << 20]).is_err());
}

#[test]
fn a_start_with_a_disk_takes_no_shell() {
    let rig = Rig::new(Guest::Silent);
    let mut pool = Pool::new(&rig, "1", &[]);
    pool.says("ready");
    let shell = pool.shell();
    let footer = DiskFooter {
        disk: ImageDisk::new(Sha256::new([7; 32]), 3).unwrap(),
        manifest_bytes: 10,
        manifest_digest: Sha256::new([9; 32]),
    };
    let disk = rig.root.join("image.disk");
    fs::write(&disk, [vec![1; 5 * 4096], footer.to_block().to_vec()].concat()).unwrap();
    let begun = started(&rig, "demo", &["--disk", disk.to_str().unwrap()]);
    assert_ne!(qemu(&pod(&rig, "demo").children), qemu(&shell.children));
    end(begun);
    assert_eq!(pool.shell(), shell);
}

#[test]
fn a_shell_whose_qemu_was_replaced_is_never_used() {
    let rig = Rig::new(Guest::Silent);
    // A QEMU of the test's own; it finds its firmware and its modules beside itself.
    let installed = Tools::default().qemu().unwrap();
    let [bin, share] = ["qemu/bin", "qemu/share"].map(|below| rig.root.join(below));
    fs::create_dir_all(&bin).unwrap();
    std::os::unix::fs::symlink("/usr/share", share).unwrap();
    std::os::unix::fs::symlink("/usr/lib", rig.root.join("qemu/lib")).unwrap();
    let own = bin.join("qemu-system-x86_64");
    fs::copy(&installed, &own).unwrap();
    let named = ["--qemu", own.to_str().unwrap()];
    let mut pool = Pool::new(&rig, "1", &named);
    pool.says("ready");
    let shell = pool.shell();
    // The honest case: it is still what it was.
    let begun = started(&rig, "first", &named);
    assert_eq!(qemu(&pod(&rig, "first").children), qemu(&shell.children));
    end(begun);

    pool.says("ready");
    let shell = pool.shell();
    let update = bin.join("update");
    fs::copy(&installed, &update).unwrap();
    fs::rename(&update, &own).unwrap();
    let begun = started(&rig, "second", &named);
    assert_eq!(pool.says("discarded")["why"], "QEMU has ended or was replaced since");
    assert_ne!(qemu(&pod(&rig, "second").children), qemu(&shell.children));
    end(begun);
}

#[test]
fn cleaning_up_leaves_a_live_shell_alone() {
    let rig = Rig::new(Guest::Silent);
    let mut pool = Pool::new(&rig, "1", &[]);
    pool.says("ready");
    let shell = pool.shell();
    assert_eq!(rig.host(&["cleanup"]).stdout, "nothing to clean up\n");
    let begun = started(&rig, "demo", &[]);
    assert_eq!(qemu(&pod(&rig, "demo").children), qemu(&shell.children));
    // Nor a pod that was one.
    assert_eq!(rig.host(&["cleanup"]).stdout, "nothing to clean up\n");
    assert_eq!(rig.host(&["inspect", "demo"]).code, Some(0));
    end(begun);
}
