//! `convrelu export`: a trained network as an ONNX file.

use std::path::PathBuf;

use clap::Args;
use convrelu::Isa;
use convrelu::train::checkpoint::read_header;
use convrelu::train::onnx::{self, OPSET};
use convrelu::train::run::CHECKPOINT;
use convrelu::train::{Inventory, TrainError, files, recorded_input};

use crate::load::load;
use crate::{Failure, Usage, output, trained};

/// Writes a trained network as an ONNX file.
///
/// The network takes any number of examples, channels first. A ConvReLU layer is one node: a function of standard
/// operators that the file brings along, so every runtime with functions runs it. Dropout is left out.
///
/// The input is `images`, as numbers, or `tokens`, as whole numbers of 64 bits. The output is `logits`. The metadata of
/// the file hold the normalisation of images, the words of tokens, and the settings of the run.
#[derive(Args)]
#[command(after_help = "Example:
  convrelu export runs/first --onnx first.onnx --fold")]
pub(crate) struct Options {
    /// Run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    onnx: PathBuf,
    /// Fold batch normalisations into the convolutions before them, unless other nodes read the output of these, too
    #[arg(long)]
    fold: bool,
    /// File of tensors, instead of the run's checkpoint
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Directory of the data. Only a run that an earlier version began needs it, because it has no record of its input
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let refused = |rule: &dyn std::fmt::Display| Usage(format!("--onnx {rule}"));
    if options.onnx.is_dir() {
        return Err(
            refused(&format!("{}: it is a folder, it must be the name of a file", options.onnx.display())).into()
        );
    }
    let (mut config, inventory) = trained::open(&options.run)?;
    let mut header = read_header(&options.run.join(CHECKPOINT))?;
    let inventory = match inventory {
        Some(inventory) if inventory.example.is_some() => inventory,
        inventory => {
            config.data.directory = options.data.clone().or(config.data.directory);
            let words = inventory.as_ref().map(|inventory| inventory.vocabulary.as_slice());
            let (train, test) = load(&config, words.filter(|words| !words.is_empty()))?;
            Inventory::of(&train, &test)
        }
    };
    let input = recorded_input(&inventory).ok_or("the data do not say what an example is")?;
    // The network computes nothing here, so its kernels need not be those of the run.
    let mut network = config.model.build(input, Isa::detect(), config.train.seed)?;
    trained::weigh(&mut network, &options.run, options.weights.as_deref())?;
    if options.weights.is_some() {
        // The figures are those of other weights.
        header.history.clear();
    }
    let name = config.model.network.to_string();
    let exported = onnx::export(&network, &name, &onnx::metadata(&header, &inventory), options.fold)?;
    files::write(&options.onnx, &exported.bytes).map_err(|error| match error {
        TrainError::Io { .. } => refused(&error).into(),
        error => Failure::from(error),
    })?;
    let (kilobytes, nodes) = (exported.bytes.len().div_ceil(1000), exported.nodes);
    let mut text = format!("{}: {kilobytes} kB, opset {OPSET}, {nodes} nodes", options.onnx.display());
    text += &format!(", {} of them ConvReLU\n", exported.conv_relus);
    if exported.normalizations > 0 {
        let (folded, all) = (exported.folded, exported.normalizations);
        text += &format!("{folded} of {all} batch normalisations are folded into convolutions\n");
    }
    output::print(&text);
    Ok(())
}
