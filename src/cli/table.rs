//! Lists on stdout: a line an entry with tabs for programs, aligned columns where a person reads.
//!
//! Cells may hold the service's words; a cell is one line and commands no terminal. What does not
//! fit a terminal's width is cut there, and is whole in a pipe and in the document.

use std::io::IsTerminal;

use console::{Term, measure_text_width, truncate_str};

use crate::cli::report::printable;
use crate::cli::watch::one_line;

/// What stands between two columns.
const GAP: &str = "  ";

/// Where a column's cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A cell in both forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    exact: String,
    shown: String,
}

impl Cell {
    /// The same for programs and for people.
    pub fn new(text: &str) -> Cell {
        Cell::of(text, text)
    }

    /// `exact` for programs, `shown` for people.
    pub fn of(exact: &str, shown: &str) -> Cell {
        // Between tabs and at a line's end there can be neither; everything else is as it came.
        let exact = printable(&exact.replace(['\t', '\n', '\r'], " "));
        Cell { exact, shown: one_line(shown) }
    }
}

/// Rows under their names.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// One with these columns and these rows.
    pub fn new(columns: &[(&'static str, Align)], rows: Vec<Vec<Cell>>) -> Table {
        Table { columns: columns.to_vec(), rows }
    }

    /// For stdout as it is, without the last line's end; nothing where there are no rows.
    pub fn for_stdout(&self) -> Option<String> {
        if self.rows.is_empty() {
            return None;
        }
        if !std::io::stdout().is_terminal() {
            return Some(self.tabbed());
        }
        let (_, width) = Term::stdout().size_checked().unwrap_or((24, 80));
        Some(self.aligned(usize::from(width)))
    }

    /// With a tab between cells and no names.
    pub fn tabbed(&self) -> String {
        let line = |row: &Vec<Cell>| {
            let cells: Vec<&str> = row.iter().map(|cell| cell.exact.as_str()).collect();
            cells.join("\t")
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// In columns below their names, no line wider than `width`.
    pub fn aligned(&self, width: usize) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        let rows = self.rows.iter().map(|row| row.iter().map(shown).collect());
        let lines: Vec<Vec<&str>> = std::iter::once(names).chain(rows).collect();
        let widest = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| measure_text_width(cell)).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(widest).collect();
        let text = |line: &Vec<&str>| {
            let padded = line.iter().zip(&self.columns).zip(&widths).map(|((cell, (_, align)), width)| {
                let room = " ".repeat(width - measure_text_width(cell));
                match align {
                    Align::Left => format!("{cell}{room}"),
                    Align::Right => format!("{room}{cell}"),
                }
            });
            let line = padded.collect::<Vec<_>>().join(GAP);
            truncate_str(line.trim_end(), width, "…").into_owned()
        };
        lines.iter().map(text).collect::<Vec<_>>().join("\n")
    }
}

fn shown(cell: &Cell) -> &str {
    if cell.shown.is_empty() { "-" } else { &cell.shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let rows = vec![
            vec![Cell::new("file-1"), Cell::of("1234", "1.2 kB"), Cell::new("a\tb\u{1b}[31m\nc  d")],
            vec![Cell::new("file-22"), Cell::new(""), Cell::new("ü")],
        ];
        Table::new(&[("id", Align::Left), ("size", Align::Right), ("name", Align::Left)], rows)
    }

    #[test]
    fn a_program_gets_tabs_and_exact_values() {
        assert_eq!(table().tabbed(), "file-1\t1234\ta b\\u{1b}[31m c  d\nfile-22\t\tü");
    }

    #[test]
    fn a_person_gets_columns() {
        let expected = "id         size  name\nfile-1   1.2 kB  a b\\u{1b}[31m c d\nfile-22       -  ü";
        assert_eq!(table().aligned(80), expected);
    }

    #[test]
    fn a_line_is_no_wider_than_the_terminal() {
        let text = table().aligned(20);
        assert!(text.lines().all(|line| measure_text_width(line) <= 20), "{text}");
        assert!(text.contains('…'), "{text}");
    }
}
