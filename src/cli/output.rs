//! Tables for people, JSON for programs.

use super::CliError;
use serde::Serialize;
use std::io::{IsTerminal, Write};

/// Where results go, and in which form.
pub struct Output {
    pub json: bool,
    colours: bool,
    to: Box<dyn Write + Send>,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("json", &self.json).field("colours", &self.colours).finish_non_exhaustive()
    }
}

impl Output {
    /// Standard output; colours on a terminal, unless `NO_COLOR` is set (no-color.org).
    pub fn stdout(json: bool) -> Self {
        let stdout = std::io::stdout();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { json, colours: stdout.is_terminal() && !plain, to: Box::new(stdout) }
    }

    /// Plain text to somewhere else.
    #[cfg(test)]
    pub fn to(json: bool, to: impl Write + Send + 'static) -> Self {
        Self { json, colours: false, to: Box::new(to) }
    }

    pub fn line(&mut self, text: impl std::fmt::Display) -> Result<(), CliError> {
        Ok(writeln!(self.to, "{text}")?)
    }

    /// One document, indented.
    pub fn document(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(value).map_err(|error| CliError::Failed(error.to_string()))?;
        self.line(text)
    }

    /// One document a line, for streams.
    pub fn record(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string(value).map_err(|error| CliError::Failed(error.to_string()))?;
        self.line(text)?;
        Ok(self.to.flush()?)
    }

    /// A list: JSON array or table. Empty cells show as `-`.
    pub fn table<T: Serialize>(
        &mut self,
        items: &[T],
        columns: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<(), CliError> {
        if self.json {
            return self.document(&items);
        }
        let shown = |cell: String| if cell.is_empty() { "-".to_owned() } else { printable(&cell) };
        let rows: Vec<Vec<String>> = items.iter().map(|item| row(item).into_iter().map(shown).collect()).collect();
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([columns[column].len()]).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns.len()).map(width).collect();
        let head: Vec<String> = columns.iter().map(|name| name.to_ascii_uppercase()).collect();
        self.row(&head, &widths)?;
        rows.iter().try_for_each(|row| self.row(row, &widths))
    }

    fn row(&mut self, cells: &[String], widths: &[usize]) -> Result<(), CliError> {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            let padding = " ".repeat(width - cell.chars().count() + 2);
            line += &self.coloured(cell);
            line += &padding;
        }
        self.line(line.trim_end())
    }

    /// Names and values, one a line; values of several lines are indented.
    pub fn fields(&mut self, fields: &[(&str, String)]) -> Result<(), CliError> {
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        for (name, value) in fields {
            let mut lines = value.lines().map(printable);
            let first = lines.next().unwrap_or_else(|| "-".into());
            let first = self.coloured(&first);
            self.line(format!("{name:width$}  {first}"))?;
            for more in lines {
                self.line(format!("{:width$}  {more}", ""))?;
            }
        }
        Ok(())
    }

    /// Text in an ANSI colour, on a terminal.
    pub fn tinted(&self, colour: u8, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// States in the colours that people expect.
    fn coloured(&self, text: &str) -> String {
        let colour = match text {
            "active" | "ok" | "connected" => 32,
            "build" | "connecting" => 33,
            "error" | "degraded" | "disconnected" => 31,
            _ => return text.to_owned(),
        };
        self.tinted(colour, text)
    }
}

/// Text as a terminal may have it: guests choose their host names, and control characters are no part of one.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// As [`printable`], line by line.
pub fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_raw() {
        assert_eq!(printable("a\x1b[31mb\nc"), "a\u{fffd}[31mb\u{fffd}c");
    }
}
