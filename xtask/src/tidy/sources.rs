//! What every source file must say, how long it and its functions may be, and what must not stand in it.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Lines of a file, its tests not counted.
const MAX_FILE: usize = 700;
/// Lines of a function.
const MAX_FUNCTION: usize = 90;
/// Modules in which `unsafe` may stand, each small and with `SAFETY:` comments.
const UNSAFE_MODULES: [&str; 2] = ["/sys.rs", "/sys/"];
/// Programs that only tests run: they make the calls that must be refused.
const PROBES: &str = "-probe.rs";
/// Text that must not stand in a source file, and why. Written in two halves so that this file does not complain of itself.
const FORBIDDEN: [(&str, &str, &str); 6] = [
    ("#[ign", "ore", "a test runs or is not there"),
    ("use anyhow::", "*", "no glob imports"),
    ("todo!", "(", "no stub is called done"),
    ("unimplemented!", "(", "no stub is called done"),
    ("mem::forg", "et(", "say who owns it instead"),
    ("unbounded_chan", "nel(", "every queue has a bound"),
];

pub(crate) fn check(root: &Path, files: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
        let text = fs::read_to_string(root.join(file))?;
        let name = file.to_string_lossy();
        complaints.extend(of_file(&name, &text));
    }
    Ok(complaints)
}

fn of_file(name: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if !text.starts_with("//!") {
        complaints.push(format!("{name}: does not open with `//!` saying what it is for"));
    }
    let is_test = name.starts_with("tests/") || name.contains("/tests/") || name.ends_with("/tests.rs");
    let body = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let lines = body.lines().count();
    if lines > MAX_FILE && !is_test {
        complaints.push(format!("{name}: {lines} lines; at most {MAX_FILE} without tests"));
    }
    for (at, function, length) in long_functions(text) {
        complaints.push(format!("{name}:{at}: `{function}` has {length} lines; at most {MAX_FUNCTION}"));
    }
    for (left, right, why) in FORBIDDEN {
        if text.contains(&format!("{left}{right}")) && !name.starts_with("xtask/") {
            complaints.push(format!("{name}: contains `{left}{right}`: {why}"));
        }
    }
    let may_be_unsafe = is_test
        || name.ends_with(PROBES)
        || name.starts_with("xtask/")
        || UNSAFE_MODULES.iter().any(|module| name.contains(module));
    if !may_be_unsafe
        && body.lines().any(|line| line.contains("unsafe {") && !line.trim_start().starts_with("//"))
    {
        complaints.push(format!("{name}: `unsafe` outside a sys module"));
    }
    if name.starts_with("shared/policy/src") && body.contains("_ =>") {
        complaints.push(format!("{name}: `_ =>` in the policy; match every variant by name"));
    }
    complaints
}

/// Functions longer than allowed: line, name, length. Relies on rustfmt: a function ends at the first line that is a
/// closing brace with the indentation of its head.
fn long_functions(text: &str) -> Vec<(usize, String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let end = format!("{}}}", " ".repeat(indent));
        let length = lines[at..].iter().position(|line| *line == end).map_or(0, |length| length + 1);
        if length > MAX_FUNCTION {
            found.push((at + 1, name, length));
        }
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let head = line.trim_start();
    let rest = head.split_once("fn ")?;
    let qualifiers = ["pub", "pub(crate)", "pub(super)", "async", "const", "unsafe", "extern", "\"C\""];
    if !rest.0.split_whitespace().all(|word| qualifiers.contains(&word)) || head.ends_with(';') {
        return None;
    }
    Some(rest.1.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_long_functions_and_missing_headers() {
        let long = format!("//! x\npub(crate) fn f() {{\n{}}}\n", "    a();\n".repeat(95));
        assert_eq!(long_functions(&long), [(2, "f".to_owned(), 97)]);
        assert!(of_file("a/src/x.rs", "fn f() {}\n")[0].contains("does not open"));
        assert!(of_file("a/src/x.rs", "//! ok\nfn f() {}\n").is_empty());
    }

    #[test]
    fn unsafe_stays_in_its_module() {
        let text = "//! x\nfn f() {\n    unsafe { g() }\n}\n";
        assert_eq!(of_file("a/src/x.rs", text).len(), 1);
        assert!(of_file("a/src/sys.rs", text).is_empty());
    }
}
