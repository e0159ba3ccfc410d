//! Tables and text on standard output, notes on standard error. A failed write never ends the work. The text is dropped, and if
//! it was meant for standard output, the program ends with the status 1.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use crate::Failure;

/// A table whose columns are as wide as their widest cell. The first column is aligned left, the others right.
pub(crate) struct Table {
    /// The first row is the head. All rows have as many cells as the head.
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { rows: vec![head.into_iter().map(Into::into).collect()] }
    }

    /// Adds a row. Missing cells are empty, and cells without a column are left out.
    pub(crate) fn row(&mut self, row: impl IntoIterator<Item = impl Into<String>>) {
        let mut row: Vec<String> = row.into_iter().map(Into::into).collect();
        row.resize(self.rows[0].len(), String::new());
        self.rows.push(row);
    }

    /// The head and the rows.
    pub(crate) fn cells(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// The same as a table in Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let cells: Vec<_> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
            text.push_str(&format!("| {} |\n", cells.join(" | ")));
            if index == 0 {
                text.push_str("|:--|");
                text.push_str(&"--:|".repeat(row.len().saturating_sub(1)));
                text.push('\n');
            }
        }
        text
    }
}

/// Spaces between two columns.
const GAP: usize = 2;

impl Table {
    /// The table for the terminal. If it is too wide, its heads take several lines. If it is still too wide, it becomes a list of
    /// its rows.
    pub(crate) fn fitted(&self) -> String {
        self.within(columns().unwrap_or(usize::MAX))
    }

    fn within(&self, columns: usize) -> String {
        let most = |cells: &mut dyn Iterator<Item = usize>| cells.max().unwrap_or(0);
        let full = |column: usize| most(&mut self.rows.iter().map(|row| chars(&row[column])));
        let mut widths: Vec<usize> = (0..self.rows[0].len()).map(full).collect();
        let total = |widths: &[usize]| widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        // Cells are never broken, and heads only between words.
        let least = |column: usize| {
            let word = most(&mut self.rows[0][column].split(' ').map(chars));
            most(&mut self.rows[1..].iter().map(|row| chars(&row[column]))).max(word)
        };
        while total(&widths) > columns {
            let spare = |&column: &usize| widths[column] - least(column);
            match (0..widths.len()).max_by_key(spare).filter(|column| spare(column) > 0) {
                Some(column) => widths[column] -= 1,
                None => return self.list(),
            }
        }
        self.lines(&widths)
    }

    /// The rows, below heads that are as wide as their columns.
    fn lines(&self, widths: &[usize]) -> String {
        let heads: Vec<Vec<String>> =
            self.rows[0].iter().zip(widths).map(|(head, &width)| wrapped(head, width)).collect();
        let height = heads.iter().map(Vec::len).max().unwrap_or(0);
        let head = (0..height).map(|line| {
            // Heads with fewer lines stand at the bottom.
            let cell = |head: &Vec<String>| (line + head.len()).checked_sub(height).map(|at| head[at].clone());
            heads.iter().map(|head| cell(head).unwrap_or_default()).collect::<Vec<_>>()
        });
        let rule = "─".repeat(widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1));
        let head: Vec<_> = head.map(|cells| line(&cells, widths)).chain([rule]).collect();
        let lines = head.into_iter().chain(self.rows[1..].iter().map(|row| line(row, widths)));
        lines.map(|line| line + "\n").collect()
    }

    /// One cell per line, each after its head.
    fn list(&self) -> String {
        let width = self.rows[0].iter().skip(1).map(|head| chars(head)).max().unwrap_or(0);
        let mut text = String::new();
        for row in &self.rows[1..] {
            text.push_str(&format!("{}\n", row[0]));
            for (head, cell) in self.rows[0].iter().zip(row).skip(1).filter(|(_, cell)| !cell.is_empty()) {
                text.push_str(&format!("  {head:<width$}  {cell}\n"));
            }
        }
        text
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.within(usize::MAX))
    }
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

/// A line of cells: the first aligned left, the others right.
fn line(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (column, (cell, &width)) in cells.iter().zip(widths).enumerate() {
        let cell = if column == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
        line.push_str(&cell);
    }
    line.trim_end().to_owned()
}

/// Text in lines of at most `columns` columns, broken between words. A longer word has a line of its own.
pub(crate) fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().filter(|line| line.is_empty() || chars(line) + 1 + chars(word) <= columns);
        match last {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => *line += &format!(" {word}"),
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Columns of prose.
pub(crate) const PROSE: usize = 80;

/// The columns that the environment or the terminal reports. None if standard output is a file or a pipe.
fn columns() -> Option<usize> {
    let named = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    named.or_else(|| terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0.into()))
}

/// A count with commas.
pub(crate) fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group));
    groups.collect::<Vec<_>>().join(",")
}

/// The error of the first write to standard output that failed.
static LOST: Mutex<Option<String>> = Mutex::new(None);

/// Prints to standard output. Text that cannot be written is dropped, and [`lost`] reports it at the end.
pub(crate) fn print(text: &str) {
    let mut out = io::stdout();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        LOST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.to_string());
    }
}

/// A failure if any text for standard output was lost.
pub(crate) fn lost() -> Result<(), Failure> {
    match &*LOST.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(format!("standard output: {error}").into()),
        None => Ok(()),
    }
}

/// Writes a line to standard error. It is dropped if it cannot be written.
pub(crate) fn note(text: &str) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_in_threes() {
        assert_eq!([7, 1_035, 100_000, 1_035_268].map(grouped), ["7", "1,035", "100,000", "1,035,268"]);
    }

    #[test]
    fn tables_are_aligned_and_also_markdown() {
        let mut table = Table::new(["row", "share %"]);
        table.row(["a|b", "1.5"]);
        table.row([format!("{}", 3)]);
        assert_eq!(table.to_string(), "row  share %\n────────────\na|b      1.5\n3\n");
        assert_eq!(table.markdown(), "| row | share % |\n|:--|--:|\n| a\\|b | 1.5 |\n| 3 |  |\n");
    }

    #[test]
    fn tables_degrade_gracefully() {
        let mut table = Table::new(["row", "a long head", "n"]);
        table.row(["first", "1.25", "3"]);
        table.row(["second", "", "4"]);
        assert_eq!(table.within(22), table.to_string());
        assert_eq!(
            table.within(17),
            "        a long\nrow       head  n\n─────────────────\nfirst     1.25  3\nsecond          4\n"
        );
        assert_eq!(table.within(10), "first\n  a long head  1.25\n  n            3\nsecond\n  n            4\n");
        for columns in 15..40 {
            assert!(table.within(columns).lines().all(|line| chars(line) <= columns.max(19)), "{columns}");
        }
    }

    #[test]
    fn prose_is_broken_between_words() {
        assert_eq!(wrapped("a bc def", 4), ["a bc", "def"]);
        assert_eq!(wrapped("abcdef g", 4), ["abcdef", "g"]);
        assert_eq!(wrapped("", 4), [""]);
    }
}
