//! What was asked for is there, what was committed has not moved, and the committed configurations of this repository
//! hold both, without building anything.

use std::{fs, path::PathBuf};

use super::*;
use crate::kernel::profile::Profiles;

/// Most options that the kernel for every container may have built in.
const GENERAL_BUDGET: usize = 640;
/// Most options above an empty kernel that the smallest kernel for one application may have built in.
const SMALLEST_BUDGET: usize = 175;

const CONFIG: &str = "\
#
# Linux/x86 6.12.1 Kernel Configuration
#
CONFIG_CC_VERSION_TEXT=\"gcc 12\"
CONFIG_SMP=y
CONFIG_NR_CPUS=16
# CONFIG_MODULES is not set
CONFIG_LSM=\"lockdown\"
";

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../kernel")
}

fn composition(options: &str) -> Composition {
    let text = format!("summary = 's'\n[options.a]\n{options}");
    Profiles::from_texts([("p", text.as_str())]).unwrap().compose("p").unwrap()
}

#[test]
fn reads_what_it_writes() {
    let config = Configuration::parse(CONFIG);
    let text = config.render("of a test");
    assert!(text.starts_with("# of a test\nCONFIG_CC_VERSION_TEXT="), "{text}");
    assert_eq!(Configuration::parse(&text), config);
    assert_eq!(config.count(), 1);
    assert_eq!(config.count_above(&config), 0);
}

#[test]
fn finds_everything_that_was_asked_for() {
    let config = Configuration::parse(CONFIG);
    let met = "SMP = { set = true, why = 'w' }\nNR_CPUS = { set = 16, why = 'w' }\n\
               MODULES = { set = false, why = 'w' }\nKEXEC = { set = false, why = 'w' }\nLSM = { set = 'lockdown', why = 'w' }";
    assert_eq!(config.unmet(&composition(met)), []);
    let unmet = "SMP = { set = false, why = 'w' }\nNR_CPUS = { set = 8, why = 'w' }\n\
                 MODULES = { set = true, why = 'w' }\nLSM = { set = 'landlock', why = 'w' }";
    let found: Vec<_> = config.unmet(&composition(unmet)).into_iter().map(|u| (u.option, u.found)).collect();
    let expected = [("LSM", "\"lockdown\""), ("MODULES", "n"), ("NR_CPUS", "16"), ("SMP", "y")];
    assert_eq!(found, expected.map(|(option, value)| (option.to_owned(), value.to_owned())));
}

#[test]
fn drift_is_named_and_the_compiler_is_none() {
    let config = Configuration::parse(CONFIG);
    let other = CONFIG.replace("gcc 12", "gcc 14").replace("SMP=y", "EPOLL=y");
    assert_eq!(
        config.drift(&Configuration::parse(&other)),
        ["EPOLL: y was committed, now n", "SMP: n was committed, now y"]
    );
    assert_eq!(config.drift(&Configuration::parse(&CONFIG.replace("gcc 12", "gcc 14"))), [""; 0]);
}

#[test]
fn every_committed_configuration_has_what_its_profile_asks_for() {
    let profiles = Profiles::read(&repository()).unwrap();
    let mut checked = 0;
    for entry in fs::read_dir(repository().join("resolved")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let composition = profiles.compose(name).unwrap();
        let config = Configuration::parse(&fs::read_to_string(&path).unwrap());
        assert_eq!(config.unmet(&composition), [], "{}: run `postern-image kernel bless`", path.display());
        checked += 1;
    }
    assert!(checked >= 3, "{checked} configurations");
}

#[test]
fn every_profile_composes() {
    let profiles = Profiles::read(&repository()).unwrap();
    for name in profiles.names() {
        let composition = profiles.compose(name).unwrap();
        assert!(!composition.summary.is_empty(), "{name}");
    }
}

#[test]
fn configurations_stay_within_their_budgets() {
    let read = |name: &str| {
        let path = repository().join("resolved").join(name).with_extension("config");
        Configuration::parse(&fs::read_to_string(path).unwrap())
    };
    let general = read("general").count();
    assert!(general <= GENERAL_BUDGET, "general has {general} options built in");
    let smallest = read("base").count_above(&read("empty"));
    assert!(smallest <= SMALLEST_BUDGET, "base has {smallest} options above an empty kernel");
}
