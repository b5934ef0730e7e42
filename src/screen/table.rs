//! Lists on stdout: a line an entry with tabs for programs, aligned columns where a person reads.
//!
//! Cells may hold the service's words; a cell is one line and commands no terminal. What does not
//! fit a terminal's width is shortened there, and is whole in a pipe and in the document.

use std::io::IsTerminal;

use console::{Term, measure_text_width, truncate_str};

use ctxtune_pipeline::text::{one_line, printable};

const GAP: &str = "  ";
const INDENT: &str = "    ";
/// How wide a column is whose cells may be shortened, where the line is too wide.
const MIDDLE_WIDTH: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
    /// Words whose middle may be left out, as in long names of models.
    Middle,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    exact: String,
    shown: String,
}

impl Cell {
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

#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
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

    /// In columns below their names, no line wider than `width`: what is too wide for one line continues on
    /// indented ones, and only a cell that is wider by itself is shortened, in its middle.
    pub fn aligned(&self, width: usize) -> String {
        let names: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let rows = self.rows.iter().map(|row| row.iter().map(|cell| shown(cell).to_owned()).collect());
        let mut lines: Vec<Vec<String>> = std::iter::once(names).chain(rows).collect();
        let mut widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                let cells = lines.iter().filter_map(|line| line.get(column));
                cells.map(|cell| measure_text_width(cell)).max().unwrap_or(0)
            })
            .collect();
        for column in (0..self.columns.len()).filter(|&column| self.columns[column].1 == Align::Middle) {
            let most = widths[column].min(MIDDLE_WIDTH);
            if total(&widths) > width {
                lines
                    .iter_mut()
                    .filter_map(|line| line.get_mut(column))
                    .for_each(|cell| *cell = shortened(cell, most));
                widths[column] = most;
            }
        }
        let text = |line: &Vec<String>| {
            let padded = line.iter().zip(&self.columns).zip(&widths).map(|((cell, (_, align)), width)| {
                let room = " ".repeat(width - measure_text_width(cell));
                match align {
                    Align::Left | Align::Middle => format!("{cell}{room}"),
                    Align::Right => format!("{room}{cell}"),
                }
            });
            let padded: Vec<String> = padded.collect();
            let (mut text, mut done) = (String::new(), 0);
            while done < padded.len() {
                let indent = if done == 0 { "" } else { INDENT };
                let room = width.saturating_sub(indent.len());
                let count = columns_that_fit(&widths[done..], room).min(padded.len() - done);
                let line = padded[done..done + count].join(GAP);
                let line = shortened(line.trim_end(), room);
                let start = if done == 0 { "" } else { "\n" };
                text.push_str(&format!("{start}{indent}{}", truncate_str(&line, room, "…")));
                done += count;
            }
            text
        };
        lines.iter().map(text).collect::<Vec<_>>().join("\n")
    }
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1)
}

/// How many of the first columns go on the first line; one at least.
fn columns_that_fit(widths: &[usize], width: usize) -> usize {
    (1..=widths.len()).rev().find(|&count| total(&widths[..count]) <= width).unwrap_or(1)
}

/// `text` with its middle left out where it is wider than `width`.
fn shortened(text: &str, width: usize) -> String {
    let characters: Vec<char> = text.chars().collect();
    if measure_text_width(text) <= width || width < 3 {
        return text.to_owned();
    }
    let (head, tail) = ((width - 1) / 2, width / 2);
    let (head, tail) = (&characters[..head], &characters[characters.len() - tail..]);
    format!("{}…{}", head.iter().collect::<String>(), tail.iter().collect::<String>())
}

fn shown(cell: &Cell) -> &str {
    if cell.shown.is_empty() { "-" } else { &cell.shown }
}

/// A moment: to the second for programs, to the minute for people.
pub fn moment(at: Option<jiff::Timestamp>) -> Cell {
    at.map_or_else(
        || Cell::new(""),
        |at| Cell::of(&at.strftime("%FT%TZ").to_string(), &at.strftime("%F %R").to_string()),
    )
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
    fn what_does_not_fit_on_a_line_continues_on_the_next() {
        assert_eq!(
            table().aligned(21),
            "id         size\n    name\nfile-1   1.2 kB\n    a b\\u{1b}[31m c d\nfile-22       -\n    ü"
        );
        let narrow = table().aligned(10);
        assert!(narrow.lines().all(|line| measure_text_width(line) <= 10), "{narrow}");
    }

    #[test]
    fn a_name_is_shortened_in_the_middle_before_a_line_is_continued() {
        let name = "meta-llama/Meta-Llama-3.1-8B-Instruct-Reference";
        let rows = vec![vec![Cell::new("ft-1"), Cell::new(name), Cell::new("me/contexts-0123")]];
        let table =
            Table::new(&[("job", Align::Left), ("base", Align::Middle), ("tuned", Align::Left)], rows);
        assert!(table.aligned(100).contains(name));
        assert_eq!(table.aligned(60).lines().last(), Some("ft-1  meta-ll…eference  me/contexts-0123"));
        assert!(table.aligned(30).contains("me/contexts-0123"));
        let narrow = table.aligned(18);
        assert!(narrow.ends_with("ft-1\n    meta-l…ference\n    me/con…ts-0123"), "{narrow}");
    }
}
