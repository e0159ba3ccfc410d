//! Rows and tables.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Pass {
    /// The output
    Forward,
    /// The output, and the gradients of input and weight
    ForwardAndBackward,
    /// A step of training
    Step,
}

impl Pass {
    const ALL: [Self; 3] = [Self::Forward, Self::ForwardAndBackward, Self::Step];

    fn title(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::ForwardAndBackward => "forward and backward",
            Self::Step => "a training step",
        }
    }
}

/// A measurement of both sides.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) threads: u32,
    pub(crate) name: String,
    pub(crate) shape: String,
    pub(crate) pass: Pass,
    pub(crate) ours_us: f64,
    /// `None` where candle has no such layer.
    pub(crate) candle_us: Option<f64>,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.candle_us.map(|candle| candle / self.ours_us)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} threads, {}, {}: {:.0} µs", self.threads, self.name, self.pass.title(), self.ours_us)?;
        match (self.candle_us, self.ratio()) {
            (Some(candle), Some(ratio)) => write!(f, ", candle {candle:.0} µs, {ratio:.2} times as long"),
            _ => Ok(()),
        }
    }
}

/// Tables by threads and pass: times, candle's time divided by ours, and the geometric mean of those ratios.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut threads: Vec<u32> = rows.iter().map(|row| row.threads).collect();
    threads.dedup();
    for threads in threads {
        for pass in Pass::ALL {
            let rows: Vec<_> = rows.iter().filter(|row| row.threads == threads && row.pass == pass).collect();
            if rows.is_empty() {
                continue;
            }
            let plural = if threads == 1 { "" } else { "s" };
            text += &format!("\n{threads} thread{plural}, {}:\n\n", pass.title());
            text += "| | | ours µs | candle µs | candle / ours |\n|:--|:--|--:|--:|--:|\n";
            let number = |value: Option<f64>, digits| value.map_or("–".to_owned(), |v| format!("{v:.digits$}"));
            for row in &rows {
                let (candle, ratio) = (number(row.candle_us, 0), number(row.ratio(), 2));
                text += &format!("| {} | {} | {:.0} | {candle} | {ratio} |\n", row.name, row.shape, row.ours_us);
            }
            let ratios: Vec<f64> = rows.iter().filter_map(|row| row.ratio()).collect();
            if !ratios.is_empty() {
                let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
                text += &format!("| geometric mean | | | | {mean:.2} |\n");
            }
        }
    }
    text
}
