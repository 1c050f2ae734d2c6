//! Standard output and error: text or JSON, tables, notices. A reader that goes away ends the program quietly;
//! colours only on a terminal and never under `NO_COLOR`.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::{failure::Failure, text};

/// How a verb that reads prints what it read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    #[default]
    Text,
    /// One JSON document, or one per line where the output is a stream.
    Json,
}

/// The flag of every verb that reads.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct FormatArg {
    /// Print text for people or JSON for programs
    #[arg(long = "output", short = 'o', value_enum, value_name = "FORMAT", default_value_t)]
    pub(crate) format: Format,
}

/// Writes to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::stdout)
}

/// Writes one line to standard output.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    print(&format!("{text}\n"))
}

/// Writes one JSON document to standard output.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let document = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::general("cannot write JSON").caused_by(error))?;
    line(&document)
}

/// Writes one line of a stream of JSON documents.
pub(crate) fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    let document = serde_json::to_string(value)
        .map_err(|error| Failure::general("cannot write JSON").caused_by(error))?;
    line(&document)
}

/// Says something to the person on standard error; lost quietly when nobody listens there.
pub(crate) fn notice(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether standard error is a place for progress bars.
pub(crate) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

pub(crate) fn colours() -> text::Colours {
    match std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        true => text::Colours::Drop,
        false => text::Colours::Keep,
    }
}

/// The mark before a check or a step, coloured where that helps.
pub(crate) fn mark(good: bool) -> &'static str {
    let coloured = io::stdout().is_terminal() && colours() == text::Colours::Keep;
    match (good, coloured) {
        (true, true) => "\x1b[32m✓\x1b[0m",
        (true, false) => "✓",
        (false, true) => "\x1b[31m✗\x1b[0m",
        (false, false) => "✗",
    }
}

/// Left-aligned columns, two spaces apart; every cell is made safe.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(headers: &[&str]) -> Self {
        Self { rows: vec![headers.iter().map(|&header| header.to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| text::clean(&cell)).collect());
    }

    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    pub(crate) fn print(&self) -> Result<(), Failure> {
        print(&self.render())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_cells_are_clean() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["a-long-name".into(), "up\x1b[2J".into()]);
        table.row(["b".into(), String::new()]);
        assert_eq!(table.render(), "NAME         STATE\na-long-name  up^[[2J\nb\n");
    }
}
