//! The table, as Markdown and as CSV, and what it comes to.

use std::error::Error;
use std::fmt;
use std::path::Path;

/// Median seconds, ours and theirs.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) threads: usize,
    /// None for a network.
    pub(crate) forward: Option<[f64; 2]>,
    /// Forward and backward, of a network a step of training.
    pub(crate) training: [f64; 2],
}

pub(crate) const HEADER: &str = "\
| layer | threads | forward, ms | burn's, ms | ratio | forward and backward, ms | burn's, ms | ratio |
|:--|--:|--:|--:|--:|--:|--:|--:|";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| {} | {} |", self.name, self.threads)?;
        for times in [self.forward, Some(self.training)] {
            match times {
                Some([ours, theirs]) => {
                    write!(f, " {:.3} | {:.3} | {:.2} |", 1e3 * ours, 1e3 * theirs, theirs / ours)?;
                }
                None => write!(f, " | | |")?,
            }
        }
        Ok(())
    }
}

/// Geometric means of the ratios of layers and the least of them, for each number of threads.
pub(crate) fn means(rows: &[Row]) -> String {
    let mut lines = vec![
        "| threads | layers | forward, geometric mean | least | forward and backward, geometric mean | least |"
            .to_owned(),
        "|--:|--:|--:|--:|--:|--:|".to_owned(),
    ];
    let mut threads: Vec<usize> = rows.iter().map(|row| row.threads).collect();
    threads.dedup();
    for threads in threads {
        let layers: Vec<_> = rows.iter().filter(|row| row.threads == threads && row.forward.is_some()).collect();
        if layers.is_empty() {
            continue;
        }
        let of = |times: fn(&Row) -> [f64; 2]| {
            let ratios: Vec<f64> = layers.iter().map(|row| times(row)).map(|[ours, theirs]| theirs / ours).collect();
            let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
            format!("{mean:.2} | {:.2}", ratios.into_iter().fold(f64::INFINITY, f64::min))
        };
        let (forward, training) = (of(|row| row.forward.unwrap_or_default()), of(|row| row.training));
        lines.push(format!("| {threads} | {} | {forward} | {training} |", layers.len()));
    }
    lines.join("\n")
}

pub(crate) fn write_csv(rows: &[Row], path: &Path) -> Result<(), Box<dyn Error>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["name", "threads", "pass", "ours_seconds", "burn_seconds"])?;
    for row in rows {
        let training = if row.forward.is_some() { "forward and backward" } else { "training step" };
        for (pass, times) in [("forward", row.forward), (training, Some(row.training))] {
            let Some([ours, theirs]) = times else { continue };
            let fields = [&row.name, &row.threads.to_string(), pass, &ours.to_string(), &theirs.to_string()];
            writer.write_record(fields)?;
        }
    }
    convrelu::train::files::write(path, &writer.into_inner()?)?;
    Ok(())
}
