//! The table.

use convrelu::Isa;

use crate::pass::Pass;
use crate::peer::Peer;

/// One line: us and one peer, or us alone.
pub(crate) struct Row<'a> {
    pub(crate) shape: &'a str,
    pub(crate) pass: Pass,
    pub(crate) layout: &'static str,
    /// Seconds.
    pub(crate) ours: f64,
    pub(crate) peer: Option<(Peer, f64)>,
    pub(crate) gflops: f64,
    /// Ours, where there is a roof to compare with.
    pub(crate) peak_percent: Option<f64>,
}

/// Pass, layout and peer.
type Key = (Pass, &'static str, &'static str);

/// Prints rows as they come, and geometric means at the end.
pub(crate) struct Report {
    csv: bool,
    isa: Isa,
    threads: usize,
    /// Logarithms of ratios, by pass, layout and peer.
    ratios: Vec<(Key, Vec<f64>)>,
}

impl Report {
    pub(crate) fn new(csv: bool, isa: Isa, threads: usize) -> Self {
        Self { csv, isa, threads, ratios: Vec::new() }
    }

    pub(crate) fn header(&self) {
        if self.csv {
            println!("shape,pass,layout,isa,threads,ours_us,peer,peer_us,ratio,peak_percent");
        } else {
            println!("{}, {} thread(s); ratio = peer / ours, above 1 ours is faster", self.isa, self.threads);
            println!("shape  pass             layout   ours µs   GFLOP/s  % peak  peer            µs        ratio");
        }
    }

    pub(crate) fn row(&mut self, row: Row<'_>) {
        let (peer, theirs) = row.peer.map_or(("none", f64::NAN), |(peer, theirs)| (peer.name(), theirs));
        let ratio = theirs / row.ours;
        if ratio.is_finite() {
            let key = (row.pass, row.layout, peer);
            let index = self.ratios.iter().position(|(other, _)| *other == key).unwrap_or_else(|| {
                self.ratios.push((key, Vec::new()));
                self.ratios.len() - 1
            });
            self.ratios[index].1.push(ratio.ln());
        }
        let blank_or = |value: f64, decimals: usize| {
            if value.is_finite() { format!("{value:.decimals$}") } else { String::new() }
        };
        let percent = row.peak_percent.map_or_else(String::new, |percent| format!("{percent:.1}"));
        if self.csv {
            // Quoted as benchdnn quotes names, where a name could break the line.
            let shape = row.shape.replace([',', '\n', '"'], " ");
            println!(
                "{shape},{},{},{},{},{:.3},{peer},{},{},{percent}",
                row.pass.name(),
                row.layout,
                self.isa,
                self.threads,
                row.ours * 1e6,
                blank_or(theirs * 1e6, 3),
                blank_or(ratio, 4),
            );
        } else {
            println!(
                "{:6} {:16} {:6} {:10.1} {:9.1} {percent:>7}  {peer:12} {:>10} {:>8}",
                row.shape,
                row.pass.name(),
                row.layout,
                row.ours * 1e6,
                row.gflops,
                blank_or(theirs * 1e6, 1),
                blank_or(ratio, 2),
            );
        }
    }

    pub(crate) fn summary(&self) {
        if self.csv || self.ratios.is_empty() {
            return;
        }
        println!("\ngeometric mean of ratios");
        for ((pass, layout, peer), logarithms) in &self.ratios {
            let mean = (logarithms.iter().sum::<f64>() / logarithms.len() as f64).exp();
            println!("       {:16} {layout:6} {peer:12} {mean:.2} over {} shapes", pass.name(), logarithms.len());
        }
    }
}
