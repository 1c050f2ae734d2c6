//! Reading what strace(1) wrote: one file for each process (`-ff`), every string in hexadecimal (`-xx`).
//!
//! strace is taken for the trace because it knows every call's arguments by name, follows every child, and is kept up
//! with the kernel by people who do nothing else; a filter with notifications would leave the decoding to us and does
//! not see calls that the C library makes before it is installed. Its lines are read by a small grammar that takes any
//! call: name, constants and strings. A line of another form is counted, never skipped in silence.

use std::collections::BTreeMap;

use super::{
    findings::Findings,
    rules::{Rules, Word, is_constant},
};

/// Options of strace under which this module reads its files.
pub const OPTIONS: &[&str] = &["-ff", "-qq", "-xx", "-s", "256", "-a", "0"];

/// Chatty calls without options or paths of their own: not worth a line each.
const QUIET: &[&str] = &[
    "read",
    "write",
    "readv",
    "writev",
    "pread64",
    "pwrite64",
    "close",
    "lseek",
    "brk",
    "mprotect",
    "munmap",
    "fstat",
    "recvfrom",
    "sendto",
    "recvmsg",
    "sendmsg",
    "poll",
    "ppoll",
    "select",
    "pselect6",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "getpid",
    "gettid",
    "nanosleep",
    "clock_nanosleep",
    "sched_yield",
    "wait4",
    "getrandom",
];

/// The argument of `-e trace=`: everything but what no rule ever looks at.
pub fn filter(rules: &Rules) -> String {
    let quiet: Vec<&str> = QUIET.iter().copied().filter(|call| rules.is_plain(call)).collect();
    format!("trace=!{}", quiet.join(","))
}

/// The argument of `-e inject=`: what pods refuse is refused here as well, so that a program shows what it does then.
pub fn refusals(rules: &Rules) -> String {
    let calls: Vec<String> = rules.refused_calls().map(|call| format!("?{call}")).collect();
    format!("inject={}:error=EPERM", calls.join(","))
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    Call(Call),
    /// A signal, an end, the rest of a call that was interrupted.
    Event,
    Unreadable,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Call {
    pub name: String,
    /// Constants and strings among the arguments, in their order.
    pub words: Vec<Word>,
    pub result: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Value(u64),
    /// The name of the error.
    Failed(String),
    /// The process ended in the call.
    None,
}

impl Call {
    fn texts(&self) -> impl Iterator<Item = &str> {
        self.words.iter().filter_map(|word| match word {
            Word::Text(text) => Some(text.as_str()),
            Word::Constant(_) => None,
        })
    }

    /// Whether what it names is simply not there, or may not be touched.
    fn found_nothing(&self) -> bool {
        matches!(&self.result, Outcome::Failed(error) if matches!(error.as_str(), "ENOENT" | "ENOTDIR" | "EACCES" | "EPERM"))
    }
}

/// Reads one line.
pub fn parse(line: &str) -> Line {
    if ["---", "+++", "<... ", "strace:"].iter().any(|start| line.starts_with(start)) || line.is_empty() {
        return Line::Event;
    }
    let name_end = line.bytes().position(|c| !(c.is_ascii_alphanumeric() || c == b'_')).unwrap_or(0);
    let (name, rest) = line.split_at(name_end);
    let Some(rest) = rest.strip_prefix('(').filter(|_| !name.is_empty()) else { return Line::Unreadable };
    let Some((words, rest)) = words(rest) else { return Line::Unreadable };
    Line::Call(Call { name: name.to_owned(), words, result: outcome(rest) })
}

/// Constants and strings of the arguments, and what follows the last `) = `.
fn words(text: &str) -> Option<(Vec<Word>, &str)> {
    let mut words = Vec::new();
    let mut at = 0;
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                let end = at + 1 + text[at + 1..].find('"')?;
                words.push(Word::Text(unescape(&text[at + 1..end])));
                at = end + 1;
            }
            b'/' if text[at..].starts_with("/*") => at += 2 + text[at + 2..].find("*/")? + 2,
            c if c.is_ascii_alphabetic() || c == b'_' => {
                let length =
                    text[at..].bytes().take_while(|c| c.is_ascii_alphanumeric() || *c == b'_').count();
                let word = &text[at..at + length];
                if is_constant(word) {
                    words.push(Word::Constant(word.to_owned()));
                }
                at += length;
            }
            // A number: letters in it (0x1F) are no constant.
            c if c.is_ascii_digit() => {
                at += text[at..].bytes().take_while(|c| c.is_ascii_alphanumeric()).count();
            }
            b')' if is_end(&text[at + 1..]) => return Some((words, &text[at + 1..])),
            _ => at += 1,
        }
    }
    // Killed within the call.
    text.trim_end().ends_with("<unfinished ...>").then_some((words, ""))
}

/// After the closing bracket of a call come blanks and its result.
fn is_end(rest: &str) -> bool {
    rest.trim_start().starts_with("= ")
}

fn outcome(rest: &str) -> Outcome {
    let result = rest.trim_start().trim_start_matches("= ");
    if let Some(error) = result.strip_prefix("-1 ") {
        return Outcome::Failed(error.split_whitespace().next().unwrap_or_default().to_owned());
    }
    let value = result.split_whitespace().next().unwrap_or_default();
    let number = match value.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => value.parse(),
    };
    number.map_or(Outcome::None, Outcome::Value)
}

/// `\x2f\x65`; a string that is no UTF-8 is no path that a rule names.
fn unescape(text: &str) -> String {
    let bytes: Vec<u8> = text
        .split("\\x")
        .skip(1)
        .map(|hex| hex.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or(b'?'))
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a whole trace says.
#[derive(Debug, Default)]
pub struct Traced {
    pub findings: Findings,
    /// Programs that were executed, by path.
    pub programs: BTreeMap<String, String>,
    /// Calls that were read.
    pub calls: u64,
    /// Lines that were not understood.
    pub unreadable: u64,
}

/// Reads a trace. `root` is the process that strace started, which is ours and not the image's: what it does does not
/// count, nor what its children do before they become a program of the image.
pub fn read(rules: &Rules, root: u32, files: &BTreeMap<u32, String>) -> Traced {
    let mut traced = Traced::default();
    let mut pending = vec![(root, Origin { name: None, directory: "/".into() })];
    let mut done = std::collections::BTreeSet::new();
    while let Some((process, origin)) = pending.pop() {
        let (Some(text), true) = (files.get(&process), done.insert(process)) else { continue };
        let mut reader =
            Reader { rules, traced: &mut traced, origin, pending: &mut pending, ours: process == root };
        for line in text.lines() {
            reader.line(line);
        }
    }
    // A child whose parent's line is lost still counts.
    for (process, text) in files.iter().filter(|(process, _)| !done.contains(process)) {
        let origin = Origin { name: Some(format!("process {process}")), directory: "/".into() };
        let mut reader = Reader { rules, traced: &mut traced, origin, pending: &mut Vec::new(), ours: false };
        for line in text.lines() {
            reader.line(line);
        }
    }
    traced
}

/// What a child has from its parent.
#[derive(Debug, Clone)]
struct Origin {
    /// The program that runs; none before the first of the image does.
    name: Option<String>,
    /// The working directory.
    directory: String,
}

struct Reader<'a> {
    rules: &'a Rules,
    traced: &'a mut Traced,
    origin: Origin,
    pending: &'a mut Vec<(u32, Origin)>,
    ours: bool,
}

impl Reader<'_> {
    fn line(&mut self, line: &str) {
        let call = match parse(line) {
            Line::Call(call) => call,
            Line::Event => return,
            Line::Unreadable => {
                self.traced.unreadable += 1;
                return;
            }
        };
        if let ("clone" | "clone3" | "fork" | "vfork", Outcome::Value(child)) =
            (call.name.as_str(), &call.result)
            && let Ok(child) = u32::try_from(*child)
            && child != 0
        {
            self.pending.push((child, self.origin.clone()));
        }
        if self.ours {
            return;
        }
        if call.name == "chdir" && call.result == Outcome::Value(0) {
            let to = call.texts().next().unwrap_or_default();
            self.origin.directory = below(&self.origin.directory, to);
        }
        let executed =
            matches!(call.name.as_str(), "execve" | "execveat") && call.result == Outcome::Value(0);
        if executed && let Some(path) = call.texts().next() {
            // A program that starts itself anew is called by what it calls itself.
            let name = if path == "/proc/self/exe" { call.texts().nth(1).unwrap_or(path) } else { path };
            let name = name.rsplit('/').next().unwrap_or(name).to_owned();
            self.traced.programs.entry(below(&self.origin.directory, path)).or_insert_with(|| name.clone());
            self.origin.name = Some(name);
        }
        let Some(name) = &self.origin.name else { return };
        self.traced.calls += 1;
        self.traced.findings.call(self.rules, &call.name, &call.words, name);
        if !call.found_nothing() {
            // Of a program's arguments only its own path is opened.
            let shown = if executed { 1 } else { usize::MAX };
            for path in call.texts().take(shown).filter(|text| text.starts_with('/')) {
                self.traced.findings.path(self.rules, path, name);
            }
        }
    }
}

/// `path` as seen from `directory`.
fn below(directory: &str, path: &str) -> String {
    match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{}/{path}", directory.trim_end_matches('/')),
    }
}

#[cfg(test)]
mod tests;
