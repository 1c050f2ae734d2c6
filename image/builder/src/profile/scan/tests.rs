//! Programs of this machine in images made on the spot.

use serde_json::json;

use super::*;
use crate::profile::image::tests::{Entry, layer, layout};

fn image(config: serde_json::Value, layers: &[Vec<u8>]) -> (tempfile::TempDir, ContainerImage) {
    let directory = tempfile::tempdir().unwrap();
    layout(directory.path(), config, layers);
    let image = ContainerImage::open(directory.path(), None).unwrap();
    (directory, image)
}

#[test]
fn the_program_its_interpreter_and_its_imports_are_found() {
    let rules = Rules::built_in().unwrap();
    // A dynamic program of every Debian system that locks a file.
    let flock = std::fs::read("/usr/bin/flock").unwrap();
    let (_directory, image) = image(
        json!({"Cmd": ["start"], "Env": ["PATH=/opt:/bin"]}),
        &[
            layer(&[
                Entry::Link("bin", "usr/bin"),
                Entry::File("usr/bin/lock-1.0", &flock),
                Entry::Link("usr/bin/lock", "lock-1.0"),
                Entry::File("opt/start", b"#!/usr/bin/env lock\n"),
                Entry::File("usr/bin/env", &flock),
                Entry::File("usr/bin/unused", b"#!/bin/none\n"),
            ]),
            layer(&[Entry::File("usr/bin/.wh.unused", b"")]),
        ],
    );
    let scanned = scan(&rules, &image, None).unwrap();
    assert_eq!(scanned.programs.first().unwrap(), "/opt/start");
    assert!(scanned.programs.contains(&"/usr/bin/lock-1.0".to_owned()), "{:?}", scanned.programs);
    assert!(scanned.findings.options.contains_key("FILE_LOCKING"), "{:?}", scanned.findings);
    assert!(scanned.findings.options.contains_key("BINFMT_SCRIPT"));
    assert!(scanned.opaque.is_empty() && !scanned.says_nothing());
    assert_eq!(scanned.starters, ["/opt/start"], "what a script goes on to start is not known");
    let missing = scan(&rules, &image, Some(&["unused".to_owned()])).unwrap_err();
    assert!(matches!(missing, ScanError::NoProgram(_)), "a layer above deleted it");
}

#[test]
fn links_that_lead_out_or_in_circles_lead_nowhere() {
    let rules = Rules::built_in().unwrap();
    let (_directory, image) = image(
        json!({"Cmd": ["/a"]}),
        &[layer(&[
            Entry::Link("a", "b"),
            Entry::Link("b", "a"),
            Entry::Link("out", "../../../../bin/sh"),
            Entry::Link("up", "/.."),
            Entry::File("../escaped", b"#!/bin/sh"),
        ])],
    );
    for program in ["/a", "/out", "/up/etc", "/escaped", "../escaped", "/"] {
        let error = scan(&rules, &image, Some(&[program.to_owned()])).unwrap_err();
        assert!(matches!(error, ScanError::NoProgram(_)), "{program}");
    }
}

#[test]
fn a_program_that_says_nothing_is_named() {
    let rules = Rules::built_in().unwrap();
    let program = crate::test_files::program();
    let (_directory, image) = image(json!({"Entrypoint": ["/p"]}), &[layer(&[Entry::File("p", &program)])]);
    let scanned = scan(&rules, &image, None).unwrap();
    assert_eq!(scanned.opaque, ["/p"]);
    assert!(scanned.says_nothing() && scanned.gaps()[0].starts_with("/p is static"), "{:?}", scanned.gaps());
}

#[test]
fn a_program_is_known_by_the_name_that_the_image_starts() {
    let rules = Rules::built_in().unwrap();
    let flock = std::fs::read("/usr/bin/flock").unwrap();
    let (_directory, image) = image(
        json!({"Cmd": ["/bin/bash", "-c", "flock x"]}),
        &[layer(&[Entry::File("bin/lock-1.0", &flock), Entry::Link("bin/bash", "lock-1.0")])],
    );
    let scanned = scan(&rules, &image, None).unwrap();
    let by = &scanned.findings.options["FILE_LOCKING"].by;
    assert!(by.iter().all(|reason| reason.who == "bash"), "{by:?}");
    assert_eq!(scanned.starters, ["bash"], "what a shell goes on to start is not known");
}
