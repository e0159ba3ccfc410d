//! `convrelu inspect`: shows a run, above all the thresholds that it learned (figure 6 of the paper).

use std::path::PathBuf;

use clap::Args;
use convrelu::train::checkpoint::{Header, Tensor, read_header, read_tensors};
use convrelu::train::models::Activation;
use convrelu::train::run::CHECKPOINT;
use convrelu::train::{Epoch, LayerUnits, files, mean_and_deviation};
use serde::Serialize;

use crate::output::{self, Table};
use crate::plot::{self, Histogram, Panel};
use crate::{Failure, Usage};

/// Shows the configuration, the progress, the dead units and the learned thresholds of a run, and draws a histogram of the
/// thresholds.
#[derive(Args)]
pub(crate) struct Options {
    /// Directory of the run
    run: PathBuf,
    /// File of the histogram [default: thresholds.svg in the directory of the run]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let path = options.run.join(CHECKPOINT);
    if !path.exists() {
        return Err(Usage(format!("RUN {}: there is no run with a checkpoint", options.run.display())).into());
    }
    let header = read_header(&path)?;
    let thresholds = read_tensors(&path, is_thresholds)?;
    let mut summary = summary(&header);
    if let Some(last) = header.history.last().filter(|epoch| !epoch.units_by_layer.is_empty()) {
        summary += &format!("\n{}", units(last).fitted());
    }
    if thresholds.is_empty() {
        output::print(&format!("{summary}\nThis network has no thresholds.\n"));
        return Ok(());
    }
    output::print(&format!("{summary}\n{}", table(&thresholds).fitted()));
    let model = &header.config.model;
    let title = format!("θ of {} in {}, {} epochs", model.activation.name(), model.network, header.progress.epochs);
    let values = thresholds.into_iter().flat_map(|tensor| tensor.values).collect();
    let picture = plot::draw(&[Panel::Histogram(Histogram::new(&title, values))])?;
    let out = options.out.clone().unwrap_or_else(|| options.run.join("thresholds.svg"));
    files::write(&out, picture.as_bytes())?;
    output::note(&out.display().to_string());
    Ok(())
}

/// Whether a tensor of a checkpoint is a layer's thresholds, by its name.
pub(crate) fn is_thresholds(name: &str) -> bool {
    // What an optimiser remembers has a prefix.
    name.ends_with(".thresholds") && !name.contains('/')
}

/// Configuration and progress.
fn summary(header: &Header) -> String {
    let (data, model, train) = (&header.config.data, &header.config.model, &header.config.train);
    let mut replaced = model.activation.name().to_owned();
    if model.activation != Activation::Relu {
        replaced += &format!(", region {}", model.region);
    }
    if model.activation.has_thresholds() {
        replaced += &format!(", thresholds from {}", model.threshold_init);
    }
    let mut lines = vec![
        ("data", data.source.to_string()),
        ("network", model.network.to_string()),
        ("activation", replaced),
        ("seed", train.seed.to_string()),
        ("kernels", header.isa.clone()),
        ("epochs", format!("{} of {}", header.progress.epochs, train.epochs)),
    ];
    if header.progress.examples > 0 {
        lines.push(("", format!("and {} examples of the next", header.progress.examples)));
    }
    if let Some(last) = header.history.last() {
        lines.push(("training", format!("loss {:.4}, accuracy {:.2} %", last.loss, 100.0 * last.accuracy)));
        lines.push(("test", format!("loss {:.4}, accuracy {:.2} %", last.test_loss, 100.0 * last.test_accuracy)));
        let share = 100.0 * last.dead_units as f64 / last.units.max(1) as f64;
        lines.push(("dead units", format!("{} of {}, {share:.1} %", last.dead_units, last.units)));
        lines.push(("learning rate", format!("{:.2e}", last.learning_rate)));
    }
    lines.iter().map(|(name, value)| format!("{name:<18}{value}\n")).collect()
}

/// Figures of the thresholds of a layer.
#[derive(Serialize)]
pub(crate) struct Figures {
    pub(crate) layer: String,
    pub(crate) thresholds: usize,
    pub(crate) mean: f64,
    pub(crate) deviation: f64,
    pub(crate) least: f32,
    pub(crate) greatest: f32,
    /// Those that are exactly 0.
    pub(crate) zeros: usize,
}

impl Figures {
    fn of(layer: &str, values: &[f32]) -> Self {
        let (mean, deviation) = mean_and_deviation(values).unwrap_or_default();
        Self {
            layer: layer.to_owned(),
            thresholds: values.len(),
            mean,
            deviation,
            least: values.iter().copied().fold(f32::INFINITY, f32::min),
            greatest: values.iter().copied().fold(f32::NEG_INFINITY, f32::max),
            zeros: values.iter().filter(|&&value| value == 0.0).count(),
        }
    }
}

/// Name of a layer, without that of its tensor.
pub(crate) fn layer(tensor: &Tensor) -> &str {
    tensor.name.strip_suffix(".thresholds").unwrap_or(&tensor.name)
}

/// Figures of the thresholds of each layer, and of all if there are several.
pub(crate) fn figures(thresholds: &[Tensor]) -> Vec<Figures> {
    let mut figures: Vec<_> = thresholds.iter().map(|tensor| Figures::of(layer(tensor), &tensor.values)).collect();
    if thresholds.len() > 1 {
        let all: Vec<f32> = thresholds.iter().flat_map(|tensor| tensor.values.iter().copied()).collect();
        figures.push(Figures::of("all", &all));
    }
    figures
}

/// The same as a table.
pub(crate) fn table(thresholds: &[Tensor]) -> Table {
    let mut table = Table::new(["layer", "thresholds", "mean", "σ", "min", "max", "zeros %"]);
    for figures in figures(thresholds) {
        table.row([
            figures.layer.clone(),
            figures.thresholds.to_string(),
            format!("{:.5}", figures.mean),
            format!("{:.5}", figures.deviation),
            format!("{:.5}", figures.least),
            format!("{:.5}", figures.greatest),
            format!("{:.1}", 100.0 * figures.zeros as f64 / figures.thresholds.max(1) as f64),
        ]);
    }
    table
}

/// Dead units of each layer after an epoch.
fn units(epoch: &Epoch) -> Table {
    let mut table = Table::new(["layer", "units", "dead", "dead %"]);
    for LayerUnits { layer, dead, total } in &epoch.units_by_layer {
        let share = 100.0 * *dead as f64 / (*total).max(1) as f64;
        table.row([layer.clone(), total.to_string(), dead.to_string(), format!("{share:.1}")]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_found_by_name() {
        assert!(is_thresholds("dense1.0.conv1.thresholds"));
        assert!(
            !is_thresholds("velocity/dense1.0.conv1.thresholds")
                && !is_thresholds("square/conv1.thresholds")
                && !is_thresholds("conv1.weight")
        );
    }

    #[test]
    fn layers_and_all_of_them_have_figures() {
        let tensor = |name: &str, values: &[f32]| Tensor {
            name: format!("{name}.thresholds"),
            shape: vec![values.len()],
            values: values.to_vec(),
        };
        let table = table(&[tensor("a", &[0.0, 1.0]), tensor("b", &[-1.0, 0.0])]).to_string();
        let rows: Vec<Vec<&str>> = table.lines().skip(2).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["a", "2", "0.50000", "0.50000", "0.00000", "1.00000", "50.0"]);
        assert_eq!(rows[2][..3], ["all", "4", "0.00000"]);
        assert_eq!(rows[2][4..], ["-1.00000", "1.00000", "50.0"]);
    }
}
