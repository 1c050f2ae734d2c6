//! What a program could do, from its file alone: for images that cannot be run here.
//!
//! The program that the image starts, its interpreter and the libraries that it is linked with are read, and the
//! functions that they import are looked up in the table. Arguments are not known (which family `socket` is called
//! with, say), and neither is what is loaded later: a trace sees more. Files are read from the layers' streams; nothing
//! is unpacked.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
};

use object::{Endianness, Object, ObjectSymbol, elf::DT_NEEDED, read::elf::ElfFile64};

use super::{
    findings::Findings,
    image::ContainerImage,
    rules::{FileKind, Rules},
};

/// The largest program that is looked into.
const MAX_PROGRAM: u64 = 512 << 20;
/// Most files that an image may have.
const MAX_FILES: usize = 1_000_000;
/// Programs that start others by the text they are given.
const SHELLS: &[&str] = &["sh", "ash", "bash", "dash"];
/// How often links are followed.
const MAX_LINKS: usize = 40;

#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error("layer {layer} cannot be read")]
    Layer { layer: usize, source: io::Error },
    #[error("the image has more than {MAX_FILES} files")]
    TooManyFiles,
    #[error("the image names no command; say what to look at with --entrypoint")]
    NoCommand,
    #[error("the image has no program {0}")]
    NoProgram(String),
}

/// What was found, and what could not be looked into.
#[derive(Debug, Default)]
pub struct Scanned {
    pub findings: Findings,
    /// Programs without a table of symbols: static and stripped.
    pub opaque: Vec<String>,
    /// Scripts and shells: what they start is in their text, which is not understood.
    pub starters: Vec<String>,
    /// Files that were read.
    pub programs: Vec<String>,
}

impl Scanned {
    /// What was not looked into, a sentence each.
    pub fn gaps(&self) -> Vec<String> {
        let opaque = self
            .opaque
            .iter()
            .map(|path| format!("{path} is static and without symbols: what it calls is not known"));
        let starters = self.starters.iter().map(|path| {
            format!("{path} starts other programs, which were not looked into; name one with --entrypoint")
        });
        opaque.chain(starters).collect()
    }

    /// Nothing could be looked into: to have found nothing then means nothing.
    pub fn says_nothing(&self) -> bool {
        self.opaque.len() == self.programs.len()
    }
}

/// What a file is, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Link(String),
    Script { interpreter: String },
    Elf32,
    Program(Elf),
    Other,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Elf {
    imports: BTreeSet<String>,
    libraries: Vec<String>,
    has_symbols: bool,
}

/// Looks at `command`, or at what the image starts.
pub fn scan(rules: &Rules, image: &ContainerImage, command: Option<&[String]>) -> Result<Scanned, ScanError> {
    let files = files(image)?;
    let own = image.config.command();
    let program = command.unwrap_or(&own).first().ok_or(ScanError::NoCommand)?;
    // Known by the name that the image gives it: `redis-server` is a link to another of redis' programs.
    let called = program.rsplit('/').next().unwrap_or(program).to_owned();
    let start = find_program(&files, image, program)
        .filter(|path| !matches!(files.get(path), None | Some(Node::Other)))
        .ok_or_else(|| ScanError::NoProgram(program.clone()))?;
    let mut scanned = Scanned::default();
    if SHELLS.contains(&called.as_str()) {
        scanned.starters.push(called.clone());
    }
    let mut pending = vec![start.clone()];
    let mut seen = BTreeSet::new();
    while let Some(path) = pending.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let name = match path == start {
            true => called.clone(),
            false => path.rsplit('/').next().unwrap_or(&path).to_owned(),
        };
        match files.get(&path) {
            Some(Node::Script { interpreter }) => {
                scanned.findings.file(rules, FileKind::Script, &format!("/{path}"), &name);
                scanned.starters.push(format!("/{path}"));
                // `#!/usr/bin/env python3` starts the second word.
                let mut words = interpreter.split_whitespace();
                let first = words.next().unwrap_or_default();
                let second = words.next().filter(|_| first.ends_with("/env"));
                pending.extend(
                    [Some(first), second]
                        .into_iter()
                        .flatten()
                        .filter_map(|p| find_program(&files, image, p)),
                );
            }
            Some(Node::Elf32) => scanned.findings.file(rules, FileKind::Elf32, &format!("/{path}"), &name),
            Some(Node::Program(elf)) => {
                for import in &elf.imports {
                    scanned.findings.import(rules, import, &name);
                }
                if !elf.has_symbols {
                    scanned.opaque.push(format!("/{path}"));
                }
                for library in &elf.libraries {
                    let suffix = format!("/{library}");
                    let found = files.keys().find(|path| path.ends_with(&suffix));
                    // The C library's own calls are every program's, and say nothing of this one.
                    if !is_c_library(library) {
                        pending.extend(found.and_then(|path| resolve(&files, path)));
                    }
                }
            }
            _ => continue,
        }
        scanned.programs.push(format!("/{path}"));
    }
    Ok(scanned)
}

fn is_c_library(name: &str) -> bool {
    ["libc.so", "libc.musl", "ld-linux", "ld-musl", "libpthread.so", "libdl.so", "libm.so", "librt.so"]
        .iter()
        .any(|start| name.starts_with(start))
}

/// Every file of the image, by its path without the leading `/`.
fn files(image: &ContainerImage) -> Result<BTreeMap<String, Node>, ScanError> {
    let mut files: BTreeMap<String, Node> = BTreeMap::new();
    for (layer, stream) in image.layers().enumerate() {
        let failed = |source| ScanError::Layer { layer, source };
        let mut archive = tar::Archive::new(stream.map_err(failed)?);
        for entry in archive.entries().map_err(failed)? {
            let mut entry = entry.map_err(failed)?;
            let Some(path) = normal("", &String::from_utf8_lossy(&entry.path_bytes())) else { continue };
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if name == ".wh..wh..opq" {
                remove_below(&mut files, parent);
            } else if let Some(hidden) = name.strip_prefix(".wh.") {
                let hidden = if parent.is_empty() { hidden.to_owned() } else { format!("{parent}/{hidden}") };
                files.remove(&hidden);
                remove_below(&mut files, &hidden);
            } else {
                let node = node(&mut entry, &path).map_err(failed)?;
                files.insert(path, node);
            }
            if files.len() > MAX_FILES {
                return Err(ScanError::TooManyFiles);
            }
        }
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(failed)?;
    }
    Ok(files)
}

fn remove_below(files: &mut BTreeMap<String, Node>, directory: &str) {
    let start = format!("{directory}/");
    files.retain(|path, _| !path.starts_with(&start));
}

fn node<R: Read>(entry: &mut tar::Entry<'_, R>, path: &str) -> io::Result<Node> {
    let kind = entry.header().entry_type();
    if kind.is_symlink() || kind.is_hard_link() {
        let target = entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let from = if kind.is_hard_link() { "" } else { parent };
        return Ok(target.and_then(|target| normal(from, &target)).map_or(Node::Other, Node::Link));
    }
    if !kind.is_file() || entry.size() > MAX_PROGRAM {
        return Ok(Node::Other);
    }
    let mut bytes = vec![0; 256];
    let read = read_up_to(entry, &mut bytes)?;
    bytes.truncate(read);
    Ok(match FileKind::of(&bytes) {
        Some(FileKind::Script) => {
            let line = bytes[2..].split(|c| *c == b'\n').next().unwrap_or_default();
            Node::Script { interpreter: String::from_utf8_lossy(line).trim().to_owned() }
        }
        Some(FileKind::Elf32) => Node::Elf32,
        None if bytes.starts_with(b"\x7fELF") => {
            entry.read_to_end(&mut bytes)?;
            elf(&bytes).map_or(Node::Other, Node::Program)
        }
        None => Node::Other,
    })
}

fn read_up_to(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match reader.read(&mut buffer[read..])? {
            0 => break,
            more => read += more,
        }
    }
    Ok(read)
}

fn elf(bytes: &[u8]) -> Option<Elf> {
    let file = ElfFile64::<Endianness>::parse(bytes).ok()?;
    let mut found = Elf { libraries: needed(&file), ..Elf::default() };
    for symbol in file.dynamic_symbols().filter(|symbol| symbol.is_undefined()) {
        found.imports.extend(symbol.name().map(str::to_owned));
    }
    found.has_symbols = !found.imports.is_empty();
    // A static program imports nothing; what was linked into it is in its own table, if it was left there.
    if found.libraries.is_empty() {
        for symbol in file.symbols() {
            found.has_symbols = true;
            found.imports.extend(symbol.name().map(|name| name.trim_start_matches('_').to_owned()));
        }
    }
    Some(found)
}

/// The libraries that a program is linked with.
fn needed(file: &ElfFile64<'_, Endianness>) -> Vec<String> {
    let Ok(table) = file.elf_dynamic_table() else { return Vec::new() };
    let names = table.iter().filter(|entry| entry.tag == DT_NEEDED);
    names
        .filter_map(|entry| table.string(entry).ok())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

/// A path below the root, from the directory `from`; none when it leads out.
fn normal(from: &str, path: &str) -> Option<String> {
    let start = if path.starts_with('/') { "" } else { from };
    let mut parts: Vec<&str> = Vec::new();
    for part in start.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// Follows links, those of directories on the way too.
fn resolve(files: &BTreeMap<String, Node>, path: &str) -> Option<String> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let link = ends.filter_map(|at| match files.get(&path[..at]) {
            Some(Node::Link(target)) => Some((target, path[at..].trim_start_matches('/'))),
            _ => None,
        });
        match link
            .map(|(target, rest)| if rest.is_empty() { target.clone() } else { format!("{target}/{rest}") })
            .next()
        {
            Some(next) => path = next,
            None => return files.contains_key(&path).then_some(path),
        }
    }
    None
}

fn find_program(files: &BTreeMap<String, Node>, image: &ContainerImage, program: &str) -> Option<String> {
    if program.contains('/') {
        let from = image.config.working_dir.as_deref().unwrap_or_default().trim_start_matches('/');
        return resolve(files, &normal(from, program)?);
    }
    let path = image.config.env().find(|(key, _)| *key == "PATH").map(|(_, value)| value);
    let path = path.unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    path.split(':').find_map(|directory| resolve(files, &normal("", &format!("{directory}/{program}"))?))
}

#[cfg(test)]
mod tests;
