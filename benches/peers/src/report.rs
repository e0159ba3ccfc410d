//! Where rows go: a table, or comma-separated values.

use std::fs::File;
use std::io::{Write, stdout};
use std::path::Path;

use crate::row::{Row, Setting};

/// Prints rows as they come, and keeps them.
pub(crate) struct Report {
    csv: Option<csv::Writer<Box<dyn Write>>>,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    pub(crate) fn table(setting: &Setting) -> Self {
        let Setting { isa, threads, theta, clock } = setting;
        println!(
            "{isa}, {threads} thread(s), θ {}, {} clock; ratio = peer / ours, above 1 ours is faster",
            theta.name(),
            clock.name()
        );
        println!("shape  pass             layout   ours µs   GFLOP/s  % peak  peer            µs        ratio");
        Self { csv: None, rows: Vec::new() }
    }

    /// Into a file, or to the standard output.
    pub(crate) fn csv(path: Option<&Path>) -> Result<Self, String> {
        let sink: Box<dyn Write> = match path {
            Some(path) => Box::new(File::create(path).map_err(|error| format!("--csv={}: {error}", path.display()))?),
            None => Box::new(stdout()),
        };
        Ok(Self { csv: Some(csv::Writer::from_writer(sink)), rows: Vec::new() })
    }

    pub(crate) fn row(&mut self, row: Row, gflops: f64) -> Result<(), String> {
        match &mut self.csv {
            // Flushed: a run that is cut short leaves what it has measured.
            Some(csv) => csv
                .serialize(&row)
                .and_then(|()| csv.flush().map_err(csv::Error::from))
                .map_err(|error| format!("--csv: {error}"))?,
            None => {
                let blank_or = |value: Option<f64>, decimals: usize| {
                    value.map_or_else(String::new, |value| format!("{value:.decimals$}"))
                };
                println!(
                    "{:6} {:16} {:6} {:10.1} {gflops:9.1} {:>7}  {:12} {:>10} {:>8}",
                    row.shape,
                    row.pass.name(),
                    row.layout.name(),
                    row.ours_us,
                    blank_or(row.peak_percent, 1),
                    row.peer.name(),
                    blank_or(row.peer_us, 1),
                    blank_or(row.ratio, 2),
                );
            }
        }
        self.rows.push(row);
        Ok(())
    }
}
