//! The numbers of an experiment as CSV. They are those that the report shows, for other programs.

use convrelu::train::LayerUnits;
use serde::Serialize;

use super::report::{Difference, Report};
use super::runs::{Job, Outcome};
use crate::records::csv;
use crate::{Failure, inspect};

/// An epoch of a run.
#[derive(Serialize)]
struct EpochLine<'a> {
    row: &'a str,
    seed: u64,
    epoch: usize,
    loss: f64,
    accuracy: f64,
    test_loss: f64,
    test_accuracy: f64,
    learning_rate: f32,
    seconds: f64,
    images_per_second: f64,
    dead_units: usize,
    units: usize,
}

/// A layer after an epoch of a run.
#[derive(Serialize)]
struct UnitsLine<'a> {
    row: &'a str,
    seed: u64,
    epoch: usize,
    layer: &'a str,
    dead: usize,
    total: usize,
}

/// The thresholds of a layer, of all seeds that trained to the end.
#[derive(Serialize)]
struct ThresholdsLine<'a> {
    row: &'a str,
    layer: String,
    thresholds: usize,
    mean: f64,
    deviation: f64,
    least: f32,
    greatest: f32,
    zeros: usize,
}

/// The difference of two rows.
#[derive(Serialize)]
struct DifferenceLine<'a> {
    row: &'a str,
    minus: &'a str,
    seeds: usize,
    mean: Option<f64>,
    error: Option<f64>,
    interval95_from: Option<f64>,
    interval95_to: Option<f64>,
}

/// One line per run and epoch.
pub(super) fn epochs(runs: &[(&Job, &Outcome)]) -> Result<Vec<u8>, Failure> {
    csv(runs.iter().flat_map(|(job, run)| {
        run.history.iter().map(|epoch| EpochLine {
            row: &job.label,
            seed: job.config.train.seed,
            epoch: epoch.epoch,
            loss: epoch.loss,
            accuracy: epoch.accuracy,
            test_loss: epoch.test_loss,
            test_accuracy: epoch.test_accuracy,
            learning_rate: epoch.learning_rate,
            seconds: epoch.seconds,
            images_per_second: epoch.images_per_second,
            dead_units: epoch.dead_units,
            units: epoch.units,
        })
    }))
}

/// One line per run, epoch and layer.
pub(super) fn units(runs: &[(&Job, &Outcome)]) -> Result<Vec<u8>, Failure> {
    csv(runs.iter().flat_map(|(job, run)| {
        let layers = run.history.iter().flat_map(|epoch| epoch.units_by_layer.iter().map(move |units| (epoch, units)));
        layers.map(|(epoch, LayerUnits { layer, dead, total })| UnitsLine {
            row: &job.label,
            seed: job.config.train.seed,
            epoch: epoch.epoch,
            layer,
            dead: *dead,
            total: *total,
        })
    }))
}

/// One line per row and layer, and one per row for all its layers.
pub(super) fn thresholds(report: &Report<'_>) -> Result<Vec<u8>, Failure> {
    csv(report.rows().iter().enumerate().flat_map(|(index, row)| {
        inspect::figures(&report.thresholds(Some(index))).into_iter().map(|figures| ThresholdsLine {
            row: &row.label,
            layer: figures.layer,
            thresholds: figures.thresholds,
            mean: figures.mean,
            deviation: figures.deviation,
            least: figures.least,
            greatest: figures.greatest,
            zeros: figures.zeros,
        })
    }))
}

/// One line per pair of rows that the experiment compares.
pub(super) fn differences(report: &Report<'_>) -> Result<Vec<u8>, Failure> {
    csv(report.differences().into_iter().map(|(one, other, difference)| {
        let interval = difference.as_ref().and_then(Difference::interval);
        DifferenceLine {
            row: &one.label,
            minus: &other.label,
            seeds: difference.as_ref().map_or(0, |difference| difference.seeds),
            mean: difference.as_ref().map(|difference| difference.mean),
            error: difference.as_ref().and_then(|difference| difference.error),
            interval95_from: interval.map(|(from, _)| from),
            interval95_to: interval.map(|(_, to)| to),
        }
    }))
}
