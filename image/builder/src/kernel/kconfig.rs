//! Why an option is not what was asked for: what the kernel's Kconfig files say it depends on, and who selects it.
//!
//! A reader of just enough of the language (Documentation/kbuild/kconfig-language.rst) for a hint in an error; the
//! kernel's own tools decide.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::config::{Configuration, Unmet};
use crate::kernel::profile::Value;

/// More Kconfig files than any kernel has.
const MAX_FILES: usize = 10_000;

/// One `config` entry.
#[derive(Debug, Default)]
struct Symbol {
    name: String,
    /// Conditions that must hold, its menus' and `if` blocks' included.
    depends: Vec<String>,
    /// What it turns on, with the condition if there is one.
    selects: Vec<String>,
    /// Whether a user can choose it.
    prompted: bool,
}

/// The options of a source tree.
#[derive(Debug)]
pub(super) struct Kconfig {
    symbols: Vec<Symbol>,
}

impl Kconfig {
    /// Reads the Kconfig files of a tree. What cannot be read is left out: this only explains.
    pub(super) fn read(tree: &Path) -> Self {
        let mut symbols = Vec::new();
        for file in files(tree) {
            if let Ok(bytes) = fs::read(&file) {
                symbols.extend(parse(&String::from_utf8_lossy(&bytes)));
            }
        }
        Self { symbols }
    }

    /// One line: the option, what was asked for, what is there, and why as far as can be told.
    pub(super) fn explain(&self, unmet: &Unmet, config: &Configuration) -> String {
        let Unmet { option, wanted, found, profile } = unmet;
        let why = match wanted {
            Value::Off => self.who_selects(option, config),
            Value::On | Value::Number(_) | Value::Text(_) | Value::Hexadecimal(_) => {
                self.what_lacks(option, config)
            }
        };
        format!("{option} is {found}, {profile} asks for {wanted}: {why}")
    }

    fn what_lacks(&self, option: &str, config: &Configuration) -> String {
        let entries: Vec<_> = self.symbols.iter().filter(|symbol| symbol.name == option).collect();
        if entries.is_empty() {
            return "this source has no such option".into();
        }
        let lacking = |symbol: &&Symbol| symbol.depends.iter().find_map(|condition| lacks(condition, config));
        let whys: Vec<_> = entries.iter().filter_map(lacking).collect();
        // An option with several entries is there when one of them is.
        if whys.len() == entries.len() {
            return whys.join("; or ");
        }
        match entries.iter().any(|symbol| symbol.prompted) {
            true => "its dependencies are met; another member of its choice, or a select, sets it".into(),
            false => "it cannot be asked for, only selected by other options".into(),
        }
    }

    fn who_selects(&self, option: &str, config: &Configuration) -> String {
        let selecting = |symbol: &&Symbol| {
            config.has(&symbol.name)
                && symbol.selects.iter().any(|select| select.split(' ').next() == Some(option))
        };
        let names: BTreeSet<_> =
            self.symbols.iter().filter(selecting).map(|symbol| symbol.name.as_str()).collect();
        match names.is_empty() {
            true => "it is on by default and cannot be switched off here".into(),
            false => format!("selected by {}", names.into_iter().collect::<Vec<_>>().join(", ")),
        }
    }
}

/// What of a condition does not hold, in words; none when nothing plainly fails.
fn lacks(condition: &str, config: &Configuration) -> Option<String> {
    // Only conjunctions are taken apart; a disjunction fails when all of its parts do.
    for part in condition.split("&&").map(str::trim) {
        let holds = |word: &str| {
            let word = word.trim().trim_matches(['(', ')']).trim();
            match word.strip_prefix('!') {
                Some(name) => !is_on(name.trim_matches(['(', ')']), config),
                None => word.contains('=') || word.contains('$') || is_on(word, config),
            }
        };
        if !part.split("||").any(holds) {
            let text = match part == condition {
                true => format!("depends on {condition}, which does not hold"),
                false => format!("depends on {condition}, of which {part} does not hold"),
            };
            return Some(text);
        }
    }
    None
}

fn is_on(name: &str, config: &Configuration) -> bool {
    name == "y" || !matches!(config.value(name), "n")
}

fn files(tree: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![tree.to_path_buf()];
    while let Some(directory) = pending.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name();
            let Ok(kind) = entry.file_type() else { continue };
            let other_machine = directory == tree.join("arch") && name != "x86";
            if kind.is_dir() && !other_machine {
                pending.push(entry.path());
            } else if kind.is_file() && name.to_string_lossy().starts_with("Kconfig") {
                found.push(entry.path());
            }
        }
        if found.len() > MAX_FILES {
            break;
        }
    }
    found.sort();
    found
}

/// Where a `depends on` belongs to.
#[derive(Clone, Copy)]
enum Target {
    Nothing,
    Symbol,
    Block,
}

fn parse(text: &str) -> Vec<Symbol> {
    let mut symbols: Vec<Symbol> = Vec::new();
    // Conditions of the open `if`, `menu` and `choice` blocks.
    let mut blocks: Vec<Vec<String>> = Vec::new();
    let mut target = Target::Nothing;
    // Indent of the `help` whose text is being skipped.
    let mut help = None;
    for line in joined(text) {
        let indent = line.len() - line.trim_start().len();
        let words = line.trim();
        if help.is_some_and(|help| words.is_empty() || indent > help) {
            continue;
        }
        help = None;
        let (keyword, rest) = words.split_once(' ').unwrap_or((words, ""));
        let rest = rest.trim();
        match keyword {
            "config" | "menuconfig" => {
                symbols.push(Symbol { name: rest.into(), depends: blocks.concat(), ..Symbol::default() });
                target = Target::Symbol;
            }
            "if" => {
                blocks.push(vec![rest.to_owned()]);
                target = Target::Nothing;
            }
            "menu" | "choice" => {
                blocks.push(Vec::new());
                target = Target::Block;
            }
            "endif" | "endmenu" | "endchoice" => {
                blocks.pop();
                target = Target::Nothing;
            }
            "comment" | "source" | "mainmenu" => target = Target::Nothing,
            "help" => help = Some(indent),
            _ => match (target, symbols.last_mut(), blocks.last_mut()) {
                (Target::Symbol, Some(symbol), _) => symbol.attribute(keyword, rest),
                (Target::Block, _, Some(block)) if keyword == "depends" => block.push(condition(rest)),
                _ => {}
            },
        }
    }
    symbols
}

impl Symbol {
    fn attribute(&mut self, keyword: &str, rest: &str) {
        match keyword {
            "depends" => self.depends.push(condition(rest)),
            "select" => self.selects.push(rest.to_owned()),
            "bool" | "tristate" | "int" | "hex" | "string" | "prompt" => {
                self.prompted |= rest.starts_with(['"', '\'']);
            }
            _ => {}
        }
    }
}

/// What follows `depends`.
fn condition(rest: &str) -> String {
    rest.strip_prefix("on").unwrap_or(rest).trim().to_owned()
}

/// Lines, those that end in a backslash joined with their next.
fn joined(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        let line = line.replace('\t', "        ");
        let (text, more) = match line.strip_suffix('\\') {
            Some(text) => (text.trim_end().to_owned(), true),
            None => (line, false),
        };
        match lines.last_mut().filter(|_| open) {
            Some(last) => {
                last.push(' ');
                last.push_str(text.trim());
            }
            None => lines.push(text),
        }
        open = more;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
menu \"Networking\"
\tdepends on NET

config TUN
\ttristate \"a tunnel\"
\tdepends on INET && \\
\t\t(CRC32 || !SMP)
\tselect CRC64 if INET
\thelp
\t  It depends on nothing,
\t  config NONE

config HIDDEN
\tbool

endmenu
config ALONE
\tbool \"alone\"
";

    fn kconfig() -> Kconfig {
        Kconfig { symbols: parse(TEXT) }
    }

    fn explain(option: &str, wanted: Value, found: &str, config: &str) -> String {
        let (option, found, profile) = (option.into(), found.into(), "base".into());
        let unmet = Unmet { option, wanted, found, profile };
        kconfig().explain(&unmet, &Configuration::parse(config))
    }

    #[test]
    fn reads_the_entries_and_skips_the_help() {
        let names: Vec<_> = kconfig().symbols.into_iter().map(|symbol| symbol.name).collect();
        assert_eq!(names, ["TUN", "HIDDEN", "ALONE"]);
    }

    #[test]
    fn says_what_is_lacking() {
        let smp = "CONFIG_SMP=y\nCONFIG_INET=y\n";
        assert_eq!(
            explain("TUN", Value::On, "n", smp),
            "TUN is n, base asks for y: depends on NET, which does not hold"
        );
        let net = format!("{smp}CONFIG_NET=y\n");
        assert_eq!(
            explain("TUN", Value::On, "n", &net),
            "TUN is n, base asks for y: depends on INET && (CRC32 || !SMP), of which (CRC32 || !SMP) does not hold"
        );
        assert!(explain("NOWHERE", Value::On, "n", "").ends_with("this source has no such option"));
        assert!(explain("HIDDEN", Value::On, "n", &net).ends_with("only selected by other options"));
    }

    #[test]
    fn says_who_selects() {
        let tun = explain("CRC64", Value::Off, "y", "CONFIG_TUN=y\nCONFIG_CRC64=y\n");
        assert_eq!(tun, "CRC64 is y, base asks for n: selected by TUN");
        assert!(explain("ALONE", Value::Off, "y", "").ends_with("cannot be switched off here"));
    }
}
