//! `convrelu params`: parameters of a network under each activation, counted from built networks (Table 6).

use clap::Args;
use convrelu::Isa;
use convrelu::train::models::{Activation, Architecture, Input, ModelConfig, Region};
use convrelu::train::{Shape, Text};
use serde_json::json;

use crate::Failure;
use crate::experiment::matrix::ACTIVATIONS;
use crate::output::{self, Table};

/// Options of `params`.
#[derive(Args)]
pub(crate) struct Options {
    #[arg(long, value_name = "NAME", default_value = "densenet-cifar", help = Architecture::names())]
    network: Architecture,
    /// Number of classes
    #[arg(long, value_name = "N", default_value_t = 100)]
    classes: usize,
    /// Height and width of the images, or length of the texts [default: 32, texts 1014]
    #[arg(long, value_name = "N")]
    size: Option<usize>,
    /// Number of channels of the images
    #[arg(long, value_name = "N", default_value_t = 3)]
    channels: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Parameters of a network in a row of the table.
pub(crate) fn count(
    network: Architecture,
    input: Input,
    activation: Activation,
    region: Region,
) -> Result<usize, Failure> {
    let model = ModelConfig { network, activation, region, ..ModelConfig::default() }.relevant();
    Ok(model.build(input, Isa::detect(), 1)?.parameter_count())
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let text = options.network.reads_text();
    let size = options.size.unwrap_or(if text { 1014 } else { 32 });
    let input = if text {
        Input { shape: Shape::new(1, [1, 1, size]), text: Some(Text::Characters(70)), classes: options.classes }
    } else {
        Input { shape: Shape::new(options.channels, [1, size, size]), text: None, classes: options.classes }
    };
    let mut table = Table::new(["activation", "parameters", "ratio to ReLU"]);
    let relu = count(options.network, input, Activation::Relu, Region::First)?;
    for (name, activation, region) in ACTIVATIONS {
        let parameters = count(options.network, input, activation, region)?;
        if options.json {
            let event =
                json!({ "event": "params", "network": options.network, "activation": name, "parameters": parameters });
            output::print(&format!("{event}\n"));
        }
        let ratio = format!("{:.4}", parameters as f64 / relu as f64);
        table.row([name.to_owned(), output::grouped(parameters), ratio]);
    }
    if !options.json {
        output::print(&table.fitted());
    }
    Ok(())
}
