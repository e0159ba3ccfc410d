//! The report of an experiment that trains, as a page.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use convrelu::Isa;
use convrelu::train::{Epoch, Run};
use serde::Serialize;

use super::html::{Cells, Frame, render};
use super::report::{Origin, Report, Summary, percent};
use super::runs::Outcome;
use crate::output::Table;
use crate::plot::{self, Axis, Curves, Histogram, Panel, Shares, mean_and_deviation};
use crate::{Failure, inspect};

/// Small histograms beside one another.
const HISTOGRAMS: usize = 4;

/// A picture or a table of a row of the experiment.
#[derive(Serialize)]
struct OfRow<T> {
    row: String,
    content: T,
}

/// The values of `report.html`. Pictures are SVG elements.
#[derive(Serialize)]
struct Page {
    #[serde(flatten)]
    frame: Frame,
    /// Whether the paper's results are an orientation only.
    orientation: bool,
    accuracies: String,
    differences: Cells,
    sentences: Vec<String>,
    curves: String,
    epochs: Cells,
    dead_pictures: Vec<OfRow<String>>,
    dead: Cells,
    histograms: Vec<OfRow<String>>,
    thresholds: Vec<OfRow<Cells>>,
    runs: Cells,
    configurations: Vec<OfRow<String>>,
    data: Vec<[String; 2]>,
}

/// The report.
pub(super) fn html(report: &Report<'_>, origin: &Origin) -> Result<String, Failure> {
    let matrix = report.matrix();
    let how = how_it_ran(report, origin);
    let page = Page {
        frame: Frame::new(matrix.title(), report.conditions(), &report.table(), &origin.command, how),
        orientation: !matrix.paper.same,
        accuracies: inline(&[&[report.accuracies()]])?,
        differences: differences(report).cells().to_vec(),
        sentences: report.sentences(),
        curves: curves(report)?,
        epochs: epochs(report).cells().to_vec(),
        dead_pictures: dead_pictures(report)?,
        dead: dead(report).cells().to_vec(),
        histograms: histograms(report)?,
        thresholds: thresholds(report),
        runs: runs(report).cells().to_vec(),
        configurations: configurations(report),
        data: data(report)?,
    };
    render("report.html", page)
}

/// Pictures as an element of the page. The name space is only needed in documents that are SVG.
fn inline(lines: &[&[Panel]]) -> Result<String, Failure> {
    Ok(plot::draw_lines(lines)?.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1))
}

fn share(part: usize, of: usize) -> f64 {
    100.0 * part as f64 / of.max(1) as f64
}

/// Mean and, of several values, sample standard deviation.
fn spread(values: &[f64], decimals: usize) -> String {
    match (mean_and_deviation(values), values.len()) {
        (_, 0) => "–".to_owned(),
        ((mean, _), 1) => format!("{mean:.decimals$}"),
        ((mean, deviation), _) => format!("{mean:.decimals$} ± {deviation:.decimals$}"),
    }
}

fn differences(report: &Report<'_>) -> Table {
    let mut table = Table::new(["rows", "difference", "standard error", "95 % interval", "seeds"]);
    for (one, other, difference) in report.differences() {
        let unknown = || "–".to_owned();
        let signed = |value: f64| format!("{value:+.2}");
        table.row([
            format!("{} − {}", one.label, other.label),
            difference.as_ref().map_or_else(unknown, |difference| signed(difference.mean)),
            difference
                .as_ref()
                .and_then(|difference| difference.error)
                .map_or_else(unknown, |error| format!("{error:.2}")),
            difference
                .as_ref()
                .and_then(|difference| difference.interval())
                .map_or_else(unknown, |(from, to)| format!("{} to {}", signed(from), signed(to))),
            difference.map_or(0, |difference| difference.seeds).to_string(),
        ]);
    }
    table
}

/// Test accuracy and loss beside one another, with one legend.
fn curves(report: &Report<'_>) -> Result<String, Failure> {
    let accuracy = report.series(|epoch| 100.0 * epoch.test_accuracy);
    let loss = Curves {
        title: "Training loss".to_owned(),
        series: report.series(|epoch| epoch.loss),
        axis: Axis::Plain,
        legend: true,
    };
    let accuracy = Curves { legend: false, ..Curves::percent("Test accuracy (%)", accuracy) };
    inline(&[&[Panel::Curves(accuracy), Panel::Curves(loss)]])
}

/// The number of epochs that any run of a row has finished.
fn epochs_of(report: &Report<'_>, row: usize) -> usize {
    report.runs_of(row).map(|(_, run)| run.history.len()).max().unwrap_or(0)
}

fn epochs(report: &Report<'_>) -> Table {
    let mut table =
        Table::new(["row", "epoch", "seeds", "training loss", "test loss", "test accuracy %", "dead units %"]);
    for (index, row) in report.rows().iter().enumerate() {
        for number in 0..epochs_of(report, index) {
            let of = |value: fn(&Epoch) -> f64| -> Vec<f64> {
                report.runs_of(index).filter_map(|(_, run)| run.history.get(number)).map(value).collect()
            };
            table.row([
                row.label.clone(),
                (number + 1).to_string(),
                of(|_| 0.0).len().to_string(),
                spread(&of(|epoch| epoch.loss), 4),
                spread(&of(|epoch| epoch.test_loss), 4),
                spread(&of(|epoch| 100.0 * epoch.test_accuracy), 2),
                spread(&of(|epoch| share(epoch.dead_units, epoch.units)), 1),
            ]);
        }
    }
    table
}

/// The shares of dead units of a layer in %: one per run that recorded it in an epoch.
fn dead_shares(runs: &[&Outcome], epoch: usize, layer: &str) -> Vec<f64> {
    let of_run = |run: &&Outcome| {
        let units = run.history.get(epoch)?.units_by_layer.iter().find(|units| units.layer == layer)?;
        Some(share(units.dead, units.total))
    };
    runs.iter().filter_map(of_run).collect()
}

/// The layers of a row that have units, in the order of the network.
fn layers(runs: &[&Outcome]) -> Vec<String> {
    let recorded = runs.iter().flat_map(|run| &run.history).find(|epoch| !epoch.units_by_layer.is_empty());
    recorded.map_or(Vec::new(), |epoch| epoch.units_by_layer.iter().map(|units| units.layer.clone()).collect())
}

/// For each row whose runs recorded it, the mean share of dead units per layer and epoch. All pictures have one scale.
fn dead_pictures(report: &Report<'_>) -> Result<Vec<OfRow<String>>, Failure> {
    let means = |index: usize| -> Vec<(String, Vec<Option<f64>>)> {
        let runs: Vec<_> = report.runs_of(index).map(|(_, run)| run).collect();
        let shares = |layer: String| {
            let mean = |epoch| {
                let shares = dead_shares(&runs, epoch, &layer);
                (!shares.is_empty()).then(|| mean_and_deviation(&shares).0)
            };
            let shares = (0..epochs_of(report, index)).map(mean).collect();
            (layer, shares)
        };
        layers(&runs).into_iter().map(shares).collect()
    };
    let all: Vec<_> = (0..report.rows().len()).map(means).collect();
    let shares = all.iter().flatten().flat_map(|(_, shares)| shares.iter().flatten());
    let most = shares.fold(0.0, |most: f64, &share| most.max(share));
    let mut pictures = Vec::new();
    for (row, rows) in report.rows().iter().zip(all).filter(|(_, rows)| !rows.is_empty()) {
        let title = format!("{}: dead units (%)", row.label);
        let content = inline(&[&[Panel::Shares(Shares { title, rows, most })]])?;
        pictures.push(OfRow { row: row.label.clone(), content });
    }
    Ok(pictures)
}

/// Dead units of each layer after the last epoch of each run.
fn dead(report: &Report<'_>) -> Table {
    let mut table = Table::new(["row", "layer", "units", "dead units %"]);
    for (index, row) in report.rows().iter().enumerate() {
        let runs: Vec<_> = report.runs_of(index).map(|(_, run)| run).collect();
        for layer in layers(&runs) {
            let last = runs.iter().filter_map(|run| run.history.last());
            let units: Vec<_> =
                last.filter_map(|epoch| epoch.units_by_layer.iter().find(|u| u.layer == layer)).collect();
            let total = units.first().map_or(0, |units| units.total);
            let shares: Vec<_> = units.iter().map(|units| share(units.dead, units.total)).collect();
            table.row([row.label.clone(), layer, total.to_string(), spread(&shares, 1)]);
        }
    }
    table
}

/// Histograms of the thresholds of each row: first of all its layers, then of each layer. All have one axis.
fn histograms(report: &Report<'_>) -> Result<Vec<OfRow<String>>, Failure> {
    let mut pictures = Vec::new();
    for (index, row) in report.rows().iter().enumerate() {
        let layers = report.thresholds(Some(index));
        if layers.is_empty() {
            continue;
        }
        let all: Vec<f32> = layers.iter().flat_map(|tensor| tensor.values.iter().copied()).collect();
        let (reach, _) = plot::shares_of_bins(&all, plot::BINS, None);
        let histogram = |title: &str, values: Vec<f32>| {
            Panel::Histogram(Histogram { reach: Some(reach), small: true, ..Histogram::new(title, values) })
        };
        let each = layers.iter().map(|tensor| histogram(inspect::layer(tensor), tensor.values.clone()));
        let panels: Vec<_> = std::iter::once(histogram("all layers", all)).chain(each).collect();
        let content = inline(&panels.chunks(HISTOGRAMS).collect::<Vec<_>>())?;
        pictures.push(OfRow { row: row.label.clone(), content });
    }
    Ok(pictures)
}

fn thresholds(report: &Report<'_>) -> Vec<OfRow<Cells>> {
    let table = |(index, row): (usize, &Summary)| {
        let thresholds = report.thresholds(Some(index));
        let content = inspect::table(&thresholds).cells().to_vec();
        (!thresholds.is_empty()).then(|| OfRow { row: row.label.clone(), content })
    };
    report.rows().iter().enumerate().filter_map(table).collect()
}

fn runs(report: &Report<'_>) -> Table {
    let mut table = Table::new([
        "row",
        "seed",
        "epochs",
        "training loss",
        "test loss",
        "test accuracy %",
        "dead units %",
        "training seconds",
        "examples/s",
        "kernels",
        "directory",
    ]);
    for (job, run) in report.runs() {
        let last = |value: &dyn Fn(&Epoch) -> String| run.history.last().map_or("–".to_owned(), value);
        let seconds: f64 = run.history.iter().map(|epoch| epoch.seconds).sum();
        table.row([
            job.label.clone(),
            job.config.train.seed.to_string(),
            match run.diverged {
                Some(epoch) => format!("diverged in {epoch}"),
                None => run.history.len().to_string(),
            },
            last(&|epoch| format!("{:.4}", epoch.loss)),
            last(&|epoch| format!("{:.4}", epoch.test_loss)),
            last(&|epoch| percent(Some(100.0 * epoch.test_accuracy))),
            last(&|epoch| format!("{:.1}", share(epoch.dead_units, epoch.units))),
            format!("{seconds:.1}"),
            last(&|epoch| format!("{:.0}", epoch.images_per_second)),
            run.isa.clone().unwrap_or_default(),
            job.directory.display().to_string(),
        ]);
    }
    table
}

/// The configuration of the first run of each row, as TOML.
fn configurations(report: &Report<'_>) -> Vec<OfRow<String>> {
    let first = |(index, row): (usize, &Summary)| {
        let (job, _) = report.runs_of(index).next()?;
        Some(OfRow { row: row.label.clone(), content: job.config.to_toml() })
    };
    report.rows().iter().enumerate().filter_map(first).collect()
}

/// The record that the runs have of their data.
fn data(report: &Report<'_>) -> Result<Vec<[String; 2]>, Failure> {
    let mut lines = vec![["data set".to_owned(), report.matrix().source.title().to_owned()]];
    let Some((job, _)) = report.runs().into_iter().next() else { return Ok(lines) };
    let config = &job.config.data;
    if let Some(directory) = &config.directory {
        lines.push(["directory".to_owned(), directory.display().to_string()]);
    }
    if let Some(inventory) = Run::inventory(&job.directory)? {
        lines.push(["training examples".to_owned(), inventory.train.to_string()]);
        lines.push(["test examples".to_owned(), inventory.test.to_string()]);
        lines.push(["classes".to_owned(), inventory.classes.to_string()]);
        if let Some(example) = inventory.example {
            lines.push(["an example".to_owned(), example.shape().to_string()]);
        }
    }
    let augmented = if config.augment { "as the data set has them" } else { "none" };
    lines.push(["random crops and flips".to_owned(), augmented.to_owned()]);
    Ok(lines)
}

/// How the program ran the experiment.
fn how_it_ran(report: &Report<'_>, origin: &Origin) -> [(&'static str, String); 4] {
    let isas: BTreeSet<&str> = report.runs().iter().filter_map(|(_, run)| run.isa.as_deref()).collect();
    let threads = report.runs().first().and_then(|(job, _)| job.config.train.threads).map_or(1, NonZeroUsize::get);
    [
        ("kernels of the runs", isas.into_iter().collect::<Vec<_>>().join(", ")),
        ("kernels that this machine would choose", Isa::detect().to_string()),
        ("runs at the same time", origin.at_once.to_string()),
        ("threads per run", threads.to_string()),
    ]
}
