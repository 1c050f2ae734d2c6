//! An image says which options it needs of the guest's kernel. A pod whose kernel lacks one refuses the container and names
//! the option, which `postern-image profile check` has said before; one whose kernel has them runs it. A distribution's
//! kernel comes without a list of its options, and then nothing is refused.

use std::process::Command;

use postern_tests::{
    archive::ImageRecipe,
    programs,
    vm::{POD, Vm},
};

const LABEL: &str = "org.postern.kernel-options";
/// The agent itself waits with it, so every kernel has it.
const PRESENT: &str = "EPOLL";
/// Kept out of every kernel of ours.
const ABSENT: &str = "USERFAULTFD";
/// `postern run`: the container was not started.
const NOT_STARTED: i32 = 125;
/// `postern-image profile check`: all there, and something lacking.
const FITS: i32 = 0;
const LACKS: i32 = 4;

fn labelled(name: &str, options: &str) -> ImageRecipe {
    let mut recipe = ImageRecipe::busybox(&format!("{name}:1"));
    recipe.labels.push((LABEL.to_owned(), options.to_owned()));
    recipe
}

/// What `profile check` says of an image and the kernel that pods boot here.
fn foreseen(vm: &Vm, recipe: &ImageRecipe) -> (i32, String) {
    let archive = vm.home.root().join("checked.tar");
    recipe.write_oci_archive(&archive).unwrap();
    let output = Command::new(programs::program("postern-image").unwrap())
        .args(["profile", "check"])
        .arg(&archive)
        .arg("--image-dir")
        .arg(programs::image().unwrap())
        .output()
        .unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn an_image_runs_on_a_kernel_that_has_what_it_asks_for() {
    let vm = Vm::boot(&["--memory", "96M"]).unwrap();
    let (content, greedy) =
        (labelled("content", PRESENT), labelled("greedy", &format!("{PRESENT} {ABSENT}")));
    let run = |recipe: &ImageRecipe| {
        vm.push(recipe).unwrap().ok().unwrap();
        vm.home.postern(&["run", POD, &recipe.reference, "--", "echo", "it runs"]).unwrap()
    };
    let specialised = programs::image().unwrap().join("kernel.config").is_file();

    assert_eq!(run(&content).ok().unwrap().text(), "it runs\n");
    let said = run(&greedy);
    if !specialised {
        assert_eq!(said.ok().unwrap().text(), "it runs\n", "nobody knows what a distribution's kernel has");
        return;
    }
    assert_eq!(foreseen(&vm, &content).0, FITS);
    let (code, words) = foreseen(&vm, &greedy);
    assert!(code == LACKS && words.contains(ABSENT) && !words.contains(PRESENT), "{code} {words}");

    let said = said.expect_code(NOT_STARTED).unwrap();
    assert!(said.text().is_empty(), "it ran all the same");
    assert!(said.stderr.contains(ABSENT) && !said.stderr.contains(PRESENT), "{}", said.stderr);
    // Nothing is left of what was refused, and others are not in its way.
    let listed = vm.ok(&["ps", "-a", POD]).unwrap().text();
    assert!(listed.contains("content") && !listed.contains("greedy"), "{listed}");
    assert_eq!(run(&labelled("again", PRESENT)).ok().unwrap().text(), "it runs\n");
}
