//! Composition is a union without order, and everything that cannot be one is refused by name.

use super::*;

const BASE: &str = r#"
summary = "the least"
[options.core]
SMP = { set = true, why = "processors" }
NR_CPUS = { set = 256, why = "as many" }
[options.absent]
MODULES = { set = false, why = "none" }
"#;

fn compose(texts: &[(&str, &str)], name: &str) -> Result<Composition, ProfileError> {
    Profiles::from_texts(texts.iter().copied())?.compose(name)
}

fn refusal(texts: &[(&str, &str)], name: &str) -> String {
    compose(texts, name).unwrap_err().to_string()
}

#[test]
fn the_order_of_including_does_not_matter() {
    let more = "summary = 's'\n[options.x]\nEPOLL = { set = true, why = 'w' }\nLSM = { set = 'a,b', why = 'w' }\nBASE = { set = '0x10', why = 'w' }";
    let one = [("base", BASE), ("more", more), ("all", "summary = 'all'\ninclude = ['base', 'more']")];
    let other = [("all", "summary = 'all'\ninclude = ['more', 'base']"), ("more", more), ("base", BASE)];
    let (one, other) = (compose(&one, "all").unwrap(), compose(&other, "all").unwrap());
    assert_eq!(one, other);
    assert_eq!(one.summary, "all");
    assert_eq!(
        one.fragment(),
        "CONFIG_BASE=0x10\nCONFIG_EPOLL=y\nCONFIG_LSM=\"a,b\"\n# CONFIG_MODULES is not set\nCONFIG_NR_CPUS=256\nCONFIG_SMP=y\n"
    );
    let wanted = &one.options["SMP"];
    assert_eq!(
        (wanted.group.as_str(), wanted.why.as_str(), wanted.profile.as_str()),
        ("core", "processors", "base")
    );
}

#[test]
fn what_two_paths_include_is_there_once() {
    let texts = [
        ("base", BASE),
        ("a", "summary = 'a'\ninclude = ['base']"),
        ("b", "summary = 'b'\ninclude = ['base']\n[options.x]\nSMP = { set = true, why = 'too' }"),
        ("c", "summary = 'c'\ninclude = ['a', 'b']"),
    ];
    assert_eq!(compose(&texts, "c").unwrap().options.len(), 3);
}

#[test]
fn an_unknown_profile_is_named_with_who_wants_it() {
    let texts = [("base", BASE), ("a", "summary = 'a'\ninclude = ['bass']")];
    assert_eq!(refusal(&texts, "a"), "there is no profile bass, which a includes; there are a, base");
    assert_eq!(refusal(&texts, "c"), "there is no profile c; there are a, base");
}

#[test]
fn a_cycle_is_named_from_where_it_starts() {
    let texts = [
        ("top", "summary = 't'\ninclude = ['a']"),
        ("a", "summary = 'a'\ninclude = ['b']"),
        ("b", "summary = 'b'\ninclude = ['a']"),
    ];
    assert_eq!(refusal(&texts, "top"), "profiles include each other: a -> b -> a");
    assert_eq!(
        refusal(&[("a", "summary = 'a'\ninclude = ['a']")], "a"),
        "profiles include each other: a -> a"
    );
}

#[test]
fn different_wishes_are_a_conflict() {
    let texts = [
        ("base", BASE),
        ("m", "summary = 'm'\ninclude = ['base']\n[options.x]\nMODULES = { set = true, why = 'drivers' }"),
    ];
    assert_eq!(refusal(&texts, "m"), "profile base wants MODULES to be n, profile m wants y");
}

#[test]
fn an_option_has_one_group_and_a_reason() {
    let twice = "summary = 's'\n[options.a]\nX = { set = true, why = 'w' }\n[options.b]\nX = { set = true, why = 'w' }";
    assert_eq!(refusal(&[("p", twice)], "p"), "profile p has X twice, in groups a and b");
    let cases = [
        ("X = { set = true, why = ' ' }", "X has no reason"),
        ("CONFIG_X = { set = true, why = 'w' }", "CONFIG_X is no name of an option"),
        ("x = { set = true, why = 'w' }", "x is no name of an option"),
        ("X = { set = '0x', why = 'w' }", "X is no hexadecimal number"),
        ("X = { set = 'a\"\\nCONFIG_Y=y', why = 'w' }", "X has a text with quotes"),
    ];
    for (line, expected) in cases {
        let text = format!("summary = 's'\n[options.a]\n{line}");
        let error = refusal(&[("p", &text)], "p");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_is_no_profile_is_refused() {
    let nothing = ["", "summary = 1", "summary = 's'\nincludes = []", "summary = 's'\n[options.a]\nX = true"];
    let no_reason = "summary = 's'\n[options.a]\nX = { set = true }";
    let floating = "summary = 's'\n[options.a]\nX = { set = 1.5, why = 'w' }";
    for text in nothing.into_iter().chain([no_reason, floating]) {
        assert_eq!(refusal(&[("p", text)], "p"), "p.toml is not a profile", "{text}");
    }
    let twice = [("p", "summary = 's'\ninclude = ['q', 'q']"), ("q", "summary = 'q'")];
    assert_eq!(refusal(&twice, "p"), "profile p includes q twice");
    assert_eq!(refusal(&[("p", BASE), ("p", BASE)], "p"), "there are two profiles p: p.toml and p.toml");
}

#[test]
fn reads_a_folder_and_its_applications() {
    let directory = tempfile::tempdir().unwrap();
    let error = Profiles::read(directory.path()).unwrap_err().to_string();
    assert!(error.contains("run this in a checkout of Postern"), "{error}");
    fs::create_dir(directory.path().join("applications")).unwrap();
    fs::write(directory.path().join("base.toml"), BASE).unwrap();
    fs::write(directory.path().join("README.md"), "no profile").unwrap();
    fs::write(directory.path().join("applications/redis.toml"), "summary = 'r'\ninclude = ['base']").unwrap();
    let profiles = Profiles::read(directory.path()).unwrap();
    assert_eq!(profiles.names().collect::<Vec<_>>(), ["base", "redis"]);
    fs::write(directory.path().join("applications/base.toml"), BASE).unwrap();
    assert!(matches!(Profiles::read(directory.path()), Err(ProfileError::Twice { .. })));
}
