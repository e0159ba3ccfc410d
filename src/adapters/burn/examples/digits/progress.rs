//! burn's progress and metrics as one line on the standard error output, renewed with every epoch.

use std::collections::HashMap;

use burn::train::LearnerSummary;
use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{MetricDefinition, MetricId};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation, MetricsRendererTraining,
};

/// Keeps the last value of each metric on the test digits.
pub(crate) struct Line {
    label: String,
    epochs: usize,
    names: HashMap<MetricId, String>,
    values: Vec<(String, String)>,
}

impl Line {
    pub(crate) fn new(label: &str) -> Self {
        Self { label: label.to_owned(), epochs: 0, names: HashMap::new(), values: Vec::new() }
    }
}

impl MetricsRendererTraining for Line {
    fn update_train(&mut self, _: MetricState) {}

    fn update_valid(&mut self, state: MetricState) {
        let (MetricState::Generic(entry) | MetricState::Numeric(entry, _)) = state;
        let Some(name) = self.names.get(&entry.metric_id) else { return };
        self.values.retain(|(known, _)| known != name);
        self.values.push((name.clone(), entry.serialized_entry.formatted));
        self.values.sort();
    }

    fn on_train_end(&mut self, _: Option<LearnerSummary>) -> Result<(), Box<dyn core::error::Error>> {
        eprint!("\r\x1b[K");
        Ok(())
    }
}

impl TrainingProgressLogger for Line {
    fn start(&mut self, total_epochs: usize, _: usize, _: Option<usize>, _: Option<&str>) {
        self.epochs = total_epochs;
    }

    fn update_epoch(&mut self, epoch: usize) {
        let values: Vec<_> = self.values.iter().map(|(name, value)| format!("{name} {value}")).collect();
        eprint!("\r\x1b[K{}: epoch {epoch} of {}, {}", self.label, self.epochs, values.join(", "));
    }

    fn start_split(&mut self, _: &str, _: usize) {}
    fn update_split(&mut self, _: usize) {}
    fn end_split(&mut self) {}
    fn end(&mut self) {}
    fn log_event_training(&mut self, _: String) {}
}

/// Nothing is evaluated but the test digits after every epoch.
impl EvaluationProgressLogger for Line {
    fn start_global_progress(&mut self, _: usize) {}
    fn start_test(&mut self, _: &str, _: usize) {}
    fn update_test_progress(&mut self, _: usize) {}
    fn end_test(&mut self) {}
    fn end_global_progress(&mut self) {}
    fn log_event_evaluation(&mut self, _: String) {}
}

impl MetricsRendererEvaluation for Line {
    fn update_test(&mut self, _: EvaluationName, _: MetricState) {}
}

impl MetricsRenderer for Line {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        self.names.insert(definition.metric_id, definition.name.to_string());
    }
}
