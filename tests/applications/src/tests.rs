//! What is committed of the ten applications fits together.

use std::collections::BTreeSet;

use postern_tests::programs;

use super::*;
use crate::record::{Record, Unlabelled};

fn resolved(profile: &str) -> BTreeSet<String> {
    let path = programs::root().join(format!("image/kernel/resolved/{profile}.config"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let built_in = text.lines().filter_map(|line| line.strip_prefix("CONFIG_")?.strip_suffix("=y"));
    built_in.map(str::to_owned).collect()
}

/// An option that the base has would be no reason for a kernel of one's own, and the base would refuse nothing.
#[test]
fn every_application_adds_what_the_base_lacks() {
    let base = resolved("base");
    let general = resolved("general");
    for one in List::read().unwrap().applications {
        let (own, added) = (resolved(&one.name), options(&one).unwrap());
        assert!(!added.is_empty(), "{} adds nothing", one.name);
        for option in added {
            assert!(own.contains(&option), "{}'s kernel lacks {option}", one.name);
            assert!(!base.contains(&option), "{} adds {option}, which the base has", one.name);
            assert!(general.contains(&option), "the general kernel lacks {option} of {}", one.name);
        }
        let lost: Vec<_> = base.difference(&own).collect();
        assert!(lost.is_empty(), "{}'s kernel lacks {lost:?} of the base", one.name);
    }
}

#[test]
fn the_page_is_what_was_measured() {
    let list = List::read().unwrap();
    let page = std::fs::read_to_string(programs::root().join("docs/applications.md")).unwrap();
    let rendered = page::render(&list, &Record::read().unwrap()).unwrap();
    assert!(page == rendered, "docs/applications.md is old; run `cargo run -p postern-applications page`");
}

#[test]
fn a_refusal_that_was_seen_names_what_the_profile_adds() {
    let (list, record) = (List::read().unwrap(), Record::read().unwrap());
    for one in &list.applications {
        let Some(measured) = record.applications.get(&one.name) else { continue };
        for option in options(one).unwrap() {
            assert!(
                measured.refusal.contains(&option),
                "{}: {option} is not in {:?}",
                one.name,
                measured.refusal
            );
        }
        assert!(measured.unlabelled != Unlabelled::Fails(String::new()), "{}: no last words", one.name);
    }
}

#[test]
fn names_are_the_lists() {
    let list = List::read().unwrap();
    assert_eq!(list.applications.len(), 10);
    assert_eq!(chosen(&list, &["redis".into()]).unwrap().len(), 1);
    assert!(chosen(&list, &["postgres".into()]).unwrap_err().to_string().contains("postgresql"));
}
