//! Table 6: parameters, counted in networks that are built and not trained.

use std::fs;

use convrelu::Isa;
use convrelu::train::models::{Activation, Architecture, Input, ModelConfig, Text};
use convrelu::train::{Config, Shape, files};
use serde::Serialize;
use serde_json::json;

use super::html::{Cells, Frame, render};
use super::matrix::{ACTIVATIONS, Change, Name, chosen, sizes};
use super::{Options, command_line};
use crate::Failure;
use crate::output::{self, Table, grouped};
use crate::records::csv;

/// The paper's counts of its DenseNet, in the order of [`ACTIVATIONS`].
const PAPER: [usize; 6] = [1_035_268, 1_035_268, 1_035_268, 1_035_280, 1_035_387, 1_038_184];

/// Classes of the table.
const CLASSES: usize = 100;

/// The values of `counts.html`.
#[derive(Serialize)]
struct Page {
    #[serde(flatten)]
    frame: Frame,
    /// Whether the paper has counts of this network.
    published: bool,
    others: Cells,
}

/// A row for other programs.
#[derive(Serialize)]
struct Line<'a> {
    row: &'a str,
    network: Architecture,
    classes: usize,
    parameters: usize,
    paper: Option<usize>,
}

/// CIFAR images, or text in characters.
fn input(network: Architecture, classes: usize) -> Input {
    if network.reads_text() {
        Input { shape: Shape::new(1, [1, 1, 1014]), text: Some(Text::Characters(70)), classes }
    } else {
        Input { shape: Shape::new(3, [1, 32, 32]), text: None, classes }
    }
}

fn count(model: &ModelConfig, classes: usize) -> Result<usize, Failure> {
    Ok(model.build(input(model.network, classes), Isa::detect(), 1)?.parameter_count())
}

/// Counts of the six rows.
fn rows(model: &ModelConfig) -> Result<Vec<usize>, Failure> {
    let change = |(_, activation, region)| Change { activation, region: Some(region), init: None };
    ACTIVATIONS.into_iter().map(|row| count(&change(row).apply(model), CLASSES)).collect()
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let mut model = options.settings.resolve(Config::default())?.model;
    let network = options.settings.model.network.unwrap_or(Architecture::DensenetCifar);
    model.network = network;
    let all = ACTIVATIONS.map(|(label, ..)| label);
    let numbers = chosen(&all, &options.rows)?;
    let labels: Vec<&str> = numbers.iter().map(|&number| all[number]).collect();
    if options.list {
        let list = labels.iter().map(|label| format!("{label} in {}\n", network.title()));
        output::print(&list.collect::<String>());
        return Ok(());
    }
    let all_counts = rows(&model)?;
    let relu = all_counts[0];
    let counts: Vec<usize> = numbers.iter().map(|&number| all_counts[number]).collect();
    // The paper counts a network of these sizes only.
    let plain = ModelConfig { network: Architecture::DensenetCifar, ..ModelConfig::default() };
    let paper = (ModelConfig { network, ..plain.clone() } == model && network == plain.network)
        .then(|| numbers.iter().map(|&number| PAPER[number]).collect::<Vec<_>>());
    let sizes = sizes(&model);
    let title = format!("{}; {}{sizes}, {CLASSES} classes", Name::Table6.title(), network.title());

    let mut table = Table::new(["row", "parameters", "more than ReLU", "paper"]);
    for (index, (label, &count)) in labels.iter().zip(&counts).enumerate() {
        let more = format!("{:+.2} %", 100.0 * (count as f64 / relu as f64 - 1.0));
        let paper = paper.as_ref().map_or("–".to_owned(), |paper| grouped(paper[index]));
        table.row([(*label).to_owned(), grouped(count), more, paper]);
    }
    let mut others = Table::new(["network", "classes", "ReLU", "ConvReLU"]);
    for network in [Architecture::Vgg16, Architecture::Resnet18] {
        for classes in [10, 100] {
            let of = |activation| count(&ModelConfig { network, activation, ..ModelConfig::default() }, classes);
            let (relu, convrelu) = (of(Activation::Relu)?, of(Activation::Convrelu)?);
            let name = network.title().to_owned();
            others.row([name, classes.to_string(), grouped(relu), grouped(convrelu)]);
        }
    }

    if options.json {
        let rows: Vec<_> = (labels.iter().zip(&counts).enumerate())
            .map(|(index, (label, count))| {
                json!({ "row": label, "parameters": count, "paper": paper.as_ref().map(|paper| paper[index]) })
            })
            .collect();
        let event = json!({ "event": "table", "name": Name::Table6.key(), "title": title, "rows": rows });
        output::print(&format!("{event}\n"));
    } else {
        output::print(&format!("{title}\n\n{}\n{}", table.fitted(), others.fitted()));
    }
    fs::create_dir_all(&options.out).map_err(|error| format!("--out {}: {error}", options.out.display()))?;
    let stem = format!("{}-{network}{}", Name::Table6.key(), sizes.replace(", ", "-").replace(' ', ""));
    let command = command_line(std::env::args_os());
    let markdown = format!("# {title}\n\n{}\n{}\n```sh\n{command}\n```\n", table.markdown(), others.markdown());
    let conditions =
        format!("network: {}{sizes}; input: {}; classes: {CLASSES}", network.title(), input(network, CLASSES).shape);
    let page = Page {
        frame: Frame::new(title, conditions, &table, &command, []),
        published: paper.is_some(),
        others: others.cells().to_vec(),
    };
    let html = render("counts.html", page)?;
    let csv = csv(labels.iter().zip(&counts).enumerate().map(|(index, (row, &parameters))| Line {
        row,
        network,
        classes: CLASSES,
        parameters,
        paper: paper.as_ref().map(|paper| paper[index]),
    }))?;
    for (extension, contents) in [("md", markdown.into_bytes()), ("html", html.into_bytes()), ("csv", csv)] {
        let path = options.out.join(format!("{stem}.{extension}"));
        files::write(&path, &contents)?;
        output::note(&path.display().to_string());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_the_papers() {
        let model = ModelConfig { network: Architecture::DensenetCifar, ..ModelConfig::default() };
        assert_eq!(rows(&model).unwrap(), PAPER);
    }

    #[test]
    fn counts_of_other_networks_are_known() {
        for (network, classes, expected) in [
            (Architecture::Vgg16, 10, 14_728_266),
            (Architecture::Vgg16, 100, 14_774_436),
            (Architecture::Resnet18, 10, 11_173_962),
            (Architecture::Resnet18, 100, 11_220_132),
        ] {
            let model = ModelConfig { network, ..ModelConfig::default() };
            assert_eq!(count(&model, classes).unwrap(), expected, "{network} {classes}");
        }
    }
}
