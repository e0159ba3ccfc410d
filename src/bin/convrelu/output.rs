//! Tables and text on standard output.

use std::fmt;
use std::io::{self, Write};

use crate::Failure;

/// A table whose columns are as wide as their widest cell; the first is aligned left, the others right.
pub(crate) struct Table {
    /// The first is the head; all have as many cells as it.
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { rows: vec![head.into_iter().map(Into::into).collect()] }
    }

    /// Adds a row; cells that it lacks are empty, cells without a column are left out.
    pub(crate) fn row(&mut self, row: impl IntoIterator<Item = impl Into<String>>) {
        let mut row: Vec<String> = row.into_iter().map(Into::into).collect();
        row.resize(self.rows[0].len(), String::new());
        self.rows.push(row);
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

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = vec![0; self.rows[0].len()];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for (index, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let cell = if column == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
                line.push_str(&cell);
            }
            writeln!(f, "{}", line.trim_end())?;
            if index == 0 {
                writeln!(f, "{}", "─".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)))?;
            }
        }
        Ok(())
    }
}

/// A count with commas.
pub(crate) fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group));
    groups.collect::<Vec<_>>().join(",")
}

/// Prints to standard output; a reader that has gone away is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("standard output: {error}").into()),
        _ => Ok(()),
    }
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
}
