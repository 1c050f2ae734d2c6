//! Counts lines of source as a reader would: those with code on them. Plain and the same everywhere, not exact.
//!
//! A line counts when it is neither blank nor only a comment. What a build does not link is left out where its place says
//! so: tests, benches, examples, build scripts. A crate's code for other platforms counts, so the sum is an upper bound.

use std::{fs, io, path::Path};

use serde::Serialize;

/// Folders and files of a crate that never end up in a program that links it.
const NOT_LINKED: &[&str] = &[
    "tests", "benches", "examples", "fuzz", "target", "build.rs", "build", "tests.rs", "bin", "doc", "docs",
];
/// Longest file that is read. Larger ones are data.
const MAX_FILE: u64 = 8 << 20;
/// Deepest folder below a crate's own.
const MAX_DEPTH: usize = 16;

/// Lines of source code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Lines {
    pub rust: u64,
    /// C and assembly.
    pub other: u64,
}

impl Lines {
    pub fn all(self) -> u64 {
        self.rust + self.other
    }
}

impl std::ops::AddAssign for Lines {
    fn add_assign(&mut self, more: Self) {
        self.rust += more.rust;
        self.other += more.other;
    }
}

/// Lines of the crate in `folder`.
pub(super) fn count(folder: &Path) -> io::Result<Lines> {
    let mut lines = Lines::default();
    let mut pending = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = pending.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if NOT_LINKED.contains(&name.as_ref()) || name.starts_with('.') {
                continue;
            }
            let kind = entry.file_type()?;
            if kind.is_dir() && depth < MAX_DEPTH {
                pending.push((entry.path(), depth + 1));
            } else if kind.is_file() && entry.metadata()?.len() <= MAX_FILE {
                let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
                match extension {
                    "rs" => lines.rust += code_lines(&read(&entry.path())?, "//"),
                    "c" | "h" | "S" | "s" => lines.other += code_lines(&read(&entry.path())?, "//"),
                    "asm" => lines.other += code_lines(&read(&entry.path())?, ";"),
                    _ => {}
                }
            }
        }
    }
    Ok(lines)
}

fn read(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

/// Lines up to the tests at a file's end that hold more than a comment.
fn code_lines(text: &str, comment: &str) -> u64 {
    let mut inside_comment = false;
    let mut count = 0;
    for line in text.lines().map(str::trim).take_while(|line| *line != "mod tests {") {
        if inside_comment {
            inside_comment = !line.contains("*/");
            continue;
        }
        if line.starts_with("/*") {
            inside_comment = !line.contains("*/");
            continue;
        }
        if !line.is_empty() && !line.starts_with(comment) {
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_counts_and_comments_do_not() {
        let text = "//! head\n\n/* a\n b */\nfn f() { // why\n    1 /* x */\n}\n#[cfg(test)]\nmod tests {\n    fn g() {}\n}\n";
        assert_eq!(code_lines(text, "//"), 4);
        assert_eq!(code_lines("; comment\nmov eax, 1\n", ";"), 1);
    }

    #[test]
    fn what_is_not_linked_is_not_counted() {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("src/lib.rs", "fn a() {}\n"),
            ("src/a/tests.rs", "fn b() {}\n"),
            ("tests/x.rs", "fn c() {}\n"),
            ("build.rs", "fn main() {}\n"),
            ("c/x.c", "int x;\nint y;\n"),
            ("README.md", "words\n"),
        ] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        assert_eq!(count(folder.path()).unwrap(), Lines { rust: 1, other: 2 });
    }
}
