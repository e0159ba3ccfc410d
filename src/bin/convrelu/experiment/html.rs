//! Pages: results as one HTML file each, which needs no other file and asks no server for anything.

use std::fs;
use std::num::NonZeroUsize;
use std::thread;

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

use crate::output::Table;
use crate::{Failure, plot};

/// `page.html` is the frame of all pages. The pages that extend it fill its blocks.
const TEMPLATES: [(&str, &str); 4] = [
    ("tables.html", include_str!("tables.html")),
    ("page.html", include_str!("page.html")),
    ("report.html", include_str!("report.html")),
    ("counts.html", include_str!("counts.html")),
];

/// Head and rows of a table.
pub(super) type Cells = Vec<Vec<String>>;

/// The values of `page.html`.
#[derive(Serialize)]
pub(super) struct Frame {
    title: String,
    conditions: String,
    /// Style sheet of the pictures.
    picture_style: String,
    results: Cells,
    command: String,
    machine: Vec<[String; 2]>,
}

impl Frame {
    /// A page with a table of results. The lines of `runs` say how the program was run.
    pub(super) fn new<const N: usize>(
        title: String,
        conditions: String,
        results: &Table,
        command: &str,
        runs: [(&str, String); N],
    ) -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let machine = [
            ("program", format!("convrelu {}", env!("CARGO_PKG_VERSION"))),
            ("processor", processor().unwrap_or_else(|| "unknown".to_owned())),
            ("virtual cores", cores.to_string()),
            ("system", format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH)),
        ];
        Self {
            title,
            conditions,
            picture_style: plot::dark_style(),
            results: results.cells().to_vec(),
            command: command.to_owned(),
            machine: machine.into_iter().chain(runs).map(|(name, value)| [name.to_owned(), value]).collect(),
        }
    }
}

/// The page that a template makes of its values.
pub(super) fn render(template: &str, values: impl Serialize) -> Result<String, Failure> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    for (name, source) in TEMPLATES {
        environment.add_template(name, source)?;
    }
    Ok(environment.get_template(template)?.render(Serde(&values))?)
}

/// The model of the processor, if the system tells it in a file as Linux on x86 does.
fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, model)| model.trim().to_owned())
}
