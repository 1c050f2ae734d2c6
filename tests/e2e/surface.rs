//! What the host can reach in the guest and what the guest's QEMU can reach on the host, as found in a running pod and not
//! as somebody wrote it down: listening sockets, QEMU's system calls, and the committed budgets.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use postern_tests::{
    archive::ImageRecipe,
    programs,
    vm::{POD, Vm},
};

const QEMU: &str = "qemu-system-x86_64";
/// The owner's door.
const OWNER_PORT: u16 = 50090;
/// `postern-image report`: a figure is over its budget.
const OVER_BUDGET: i32 = 5;
/// `TCP_LISTEN` in /proc/net/tcp.
const LISTENING: &str = "0A";

/// Runs `postern`, which must succeed; what it printed.
fn ok(vm: &Vm, args: &[&str]) -> String {
    vm.ok(args).unwrap().text()
}

/// The pod, with busybox in it.
fn create(vm: &Vm) {
    vm.try_boot(&[]).unwrap().ok().unwrap();
    vm.push(&ImageRecipe::busybox("busybox:latest")).unwrap().ok().unwrap();
}

/// Ports that listen, by what the kernel says in the network namespace that the whole pod shares.
fn listening(vm: &Vm) -> BTreeSet<u16> {
    let tables = ok(vm, &["exec", "demo/web", "--", "cat", "/proc/net/tcp", "/proc/net/tcp6"]);
    let port = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, port) = fields.get(1)?.rsplit_once(':')?;
        (*fields.get(3)? == LISTENING).then(|| u16::from_str_radix(port, 16).ok())?
    };
    tables.lines().filter_map(port).collect()
}

#[test]
fn nothing_else_listens_in_the_guest() {
    let vm = Vm::none().unwrap();
    create(&vm);
    ok(&vm, &["run", POD, "busybox:latest", "-d", "--name", "web", "--", "sleep", "100000"]);
    assert_eq!(listening(&vm), BTreeSet::from([OWNER_PORT]));
    let files = ["udp", "udp6", "udplite", "raw", "raw6", "packet"].map(|table| format!("/proc/net/{table}"));
    let command = format!("for f in {}; do [ ! -e $f ] || tail -n +2 $f; done", files.join(" "));
    assert_eq!(ok(&vm, &["exec", "demo/web", "--", "sh", "-c", &command]), "");

    // What does listen is found: the same look sees a container's server.
    let server = ["--name", "server", "--", "httpd", "-f", "-p", "8080"];
    ok(&vm, &[&["run", POD, "busybox:latest", "-d"][..], &server].concat());
    let found = (0..100).any(|_| listening(&vm) == BTreeSet::from([OWNER_PORT, 8080]));
    assert!(found, "{:?}", listening(&vm));
}

/// A QEMU that is traced: the tracer detaches itself, so that the process keeps its id and its arguments.
fn traced_qemu(folder: &Path) -> PathBuf {
    let strace = programs::system("strace", "strace").unwrap();
    let qemu = programs::system(QEMU, "qemu-system-x86").unwrap();
    fs::create_dir_all(folder).unwrap();
    let script = folder.join(QEMU);
    let trace = folder.join("trace");
    // Only a pod is traced, not the question which QEMU this is.
    let text = format!(
        "[[ \"$*\" == *-kernel* ]] || exec {qemu} \"$@\"\nexec {strace} -D -f -qq -o {trace} {qemu} \"$@\"\n",
        qemu = qemu.display(),
        strace = strace.display(),
        trace = trace.display(),
    );
    programs::write_script(&script, &text).unwrap();
    trace
}

/// Names of the calls after the one that put QEMU's filter in place.
fn calls_in_the_sandbox(trace: &str) -> BTreeSet<&str> {
    let name = |line| {
        let call: &str = str::trim_start(str::trim_start_matches(line, |c: char| c.is_ascii_digit()));
        let call = call.strip_prefix("<... ").unwrap_or(call);
        let end = call.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
        (end > 0).then(|| &call[..end])
    };
    let is_filter = |line: &&str| line.contains("seccomp(SECCOMP_SET_MODE_FILTER") && line.contains("{len=");
    trace.lines().skip_while(|line| !is_filter(line)).skip(1).filter_map(name).collect()
}

#[test]
fn qemu_makes_no_other_system_calls() {
    let mut vm = Vm::none().unwrap();
    let trace = traced_qemu(&vm.home.root().join("traced"));
    vm.home = vm.home.clone().with_programs(trace.parent().unwrap());
    create(&vm);
    ok(
        &vm,
        &[
            "run",
            POD,
            "busybox:latest",
            "--rm",
            "--",
            "sh",
            "-c",
            "dd if=/dev/zero bs=1M count=4 2>/dev/null",
        ],
    );
    ok(&vm, &["pod", "rm", POD]);

    let text = String::from_utf8_lossy(&fs::read(&trace).unwrap()).into_owned();
    let seen = calls_in_the_sandbox(&text);
    assert!(seen.contains("ppoll") && seen.contains("futex"), "the trace is not one of QEMU: {seen:?}");
    let list = programs::root().join("image/host-syscalls.txt");
    let listed = fs::read_to_string(&list).unwrap();
    let listed: BTreeSet<&str> =
        listed.lines().filter(|line| !line.starts_with('#')).map(str::trim).collect();
    let unknown: Vec<_> = seen.difference(&listed).collect();
    assert!(unknown.is_empty(), "QEMU makes calls that {} does not list: {unknown:?}", list.display());
}

#[test]
fn the_image_keeps_its_budgets() {
    let report = |budgets: &Path| {
        let root = programs::root();
        Command::new(programs::program("postern-image").unwrap())
            .arg("report")
            .arg(programs::image().unwrap())
            .arg("--sources")
            .arg(&root)
            .arg("--budgets")
            .arg(budgets)
            .output()
            .unwrap()
    };
    let committed = programs::root().join("image/budgets.toml");
    let kept = report(&committed);
    assert_eq!(kept.status.code(), Some(0), "{}", String::from_utf8_lossy(&kept.stderr));

    // One byte less than the agent has, and the report says which line to look at.
    let folder = tempfile::tempdir().unwrap();
    let tight = folder.path().join("tight.toml");
    let size = fs::metadata(programs::program("postern-agent").unwrap()).unwrap().len() - 1;
    fs::write(&tight, format!("[[budget]]\nfigure = \"agent.size\"\nat_most = {size}\nreason = \"x\"\n"))
        .unwrap();
    let over = report(&tight);
    let said = String::from_utf8_lossy(&over.stderr).into_owned();
    assert_eq!(over.status.code(), Some(OVER_BUDGET), "{said}");
    assert!(said.contains("agent.size is") && said.contains("tight.toml:3"), "{said}");
}
