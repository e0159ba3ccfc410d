//! Checkpoints: one `safetensors` file that holds a run at a step, bit for bit.
//!
//! Tensors have the names and shapes of PyTorch (`layer1.0.conv1.weight`, `O I H W`), in any memory order of the network.
//! Thresholds are called `….thresholds`, with the shape `I H W`. The optimiser's memory has the prefixes `velocity/`
//! and, with Adam, `square/` (see [`Memory`]). The file's metadata hold these strings:
//!
//! | key | what |
//! |---|---|
//! | `format` | `convrelu` |
//! | `version` | `1` |
//! | `config` | the configuration, TOML |
//! | `isa` | the instruction set that computed it |
//! | `progress` | epochs, and examples of the current epoch, as JSON. The streams of random numbers follow from it and the seed |
//! | `history` | figures of the finished epochs, as JSON |
//!
//! A file is written whole or not at all, and read whole before anything is changed.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::config::Config;
use super::error::TrainError;
use super::files;
use super::network::Network;
use super::optimizer::{Memory, Rule};
use super::parameter::Parameter;
use super::shape::extents;
use super::trainer::{Epoch, Progress, Trainer};

/// Prefixes of the names of what an optimiser remembers.
const VELOCITY: &str = "velocity/";
const SQUARE: &str = "square/";

/// What a checkpoint says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// The configuration of the run.
    pub config: Config,
    /// The instruction set that computed it.
    pub isa: String,
    /// The progress of the run.
    pub progress: Progress,
    /// Finished epochs.
    pub history: Vec<Epoch>,
}

impl Trainer {
    /// Writes a checkpoint.
    ///
    /// # Errors
    ///
    /// [`TrainError::Io`]. An existing file of that name is unchanged then.
    pub fn save(&self, path: &Path) -> Result<(), TrainError> {
        let (network, optimizer, progress, history) = self.parts();
        let state = network.state();
        let mut tensors: Vec<_> =
            state.iter().map(|p| (p.name.clone(), &p.shape, bytes(&p.canonical(&p.value)))).collect();
        let Memory { velocities, squares } = optimizer.memory();
        for (prefix, values) in [(VELOCITY, velocities), (SQUARE, squares)] {
            let trained = state.iter().filter(|parameter| parameter.is_trained());
            for (parameter, values) in trained.zip(values) {
                let name = format!("{prefix}{}", parameter.name);
                tensors.push((name, &parameter.shape, bytes(&parameter.canonical(values))));
            }
        }
        let json = |value: Result<String, serde_json::Error>| value.map_err(|error| refused(path, error));
        let metadata = HashMap::from([
            ("format".to_owned(), "convrelu".to_owned()),
            ("version".to_owned(), "1".to_owned()),
            ("config".to_owned(), self.config().to_toml()),
            ("isa".to_owned(), self.config().train.isa()?.to_string()),
            ("progress".to_owned(), json(serde_json::to_string(progress))?),
            ("history".to_owned(), json(serde_json::to_string(history))?),
        ]);
        write(path, &tensors, metadata)
    }

    /// Restores a checkpoint of the same run: tensors, the optimiser's memory and progress, bit for bit.
    ///
    /// # Errors
    ///
    /// [`TrainError::Io`], [`TrainError::Checkpoint`] if the file is damaged, [`TrainError::Setting`] if it belongs to
    /// another run or instruction set. Nothing is changed then.
    pub fn restore(&mut self, path: &Path) -> Result<(), TrainError> {
        let data = read(path)?;
        let tensors = parse(path, &data)?;
        let header = header(path, &data)?;
        if !self.config().continues(&header.config) {
            let rule = "it belongs to a run with another configuration";
            return Err(TrainError::setting("resume", path.display(), rule));
        }
        let isa = self.config().train.isa()?.to_string();
        if header.isa != isa {
            let rule = format!(
                "{} computed it, which {isa} cannot continue bit for bit: resume it with --isa {}",
                header.isa, header.isa
            );
            return Err(TrainError::setting("resume", path.display(), rule));
        }
        if header.progress.epochs != header.history.len() {
            let rule = format!(
                "{} epochs are finished, figures are there of {}",
                header.progress.epochs,
                header.history.len()
            );
            return Err(refused(path, rule));
        }
        let Progress { examples, right, .. } = header.progress;
        if right > examples {
            return Err(refused(
                path,
                format!("it counts {right} right answers, which must not exceed its {examples} examples"),
            ));
        }
        let state = self.network().state();
        let trained = || state.iter().filter(|parameter| parameter.is_trained());
        let values = state.iter().map(|p| tensor(path, &tensors, &p.name, p)).collect::<Result<Vec<_>, _>>()?;
        // Before the first step, the optimiser remembers nothing.
        let at_rest = trained().all(|p| tensors.tensor(&format!("{VELOCITY}{}", p.name)).is_err());
        let remembered = |prefix: &str, wanted: bool| -> Result<Vec<_>, TrainError> {
            let some = trained().filter(|_| wanted && !at_rest);
            some.map(|p| tensor(path, &tensors, &format!("{prefix}{}", p.name), p)).collect()
        };
        let adam = self.config().train.optimizer == Rule::Adam;
        let memory = Memory { velocities: remembered(VELOCITY, true)?, squares: remembered(SQUARE, adam)? };
        let expected = values.len() + memory.velocities.len() + memory.squares.len();
        if tensors.len() != expected {
            return Err(refused(path, format!("it holds {} tensors, the network {expected}", tensors.len())));
        }
        let (network, optimizer, progress, history) = self.parts_mut();
        assign(network, values);
        *optimizer.memory_mut() = memory;
        (*progress, *history) = (header.progress, header.history);
        Ok(())
    }
}

/// Writes only the tensors of a network, for other programs (`safetensors.torch.load_file`).
///
/// # Errors
///
/// [`TrainError::Io`].
pub fn save_weights(network: &Network, path: &Path) -> Result<(), TrainError> {
    let tensors: Vec<_> =
        network.state().iter().map(|p| (p.name.clone(), &p.shape, bytes(&p.canonical(&p.value)))).collect();
    write(path, &tensors, HashMap::from([("format".to_owned(), "pt".to_owned())]))
}

/// Reads the tensors of a network from a checkpoint or a file of weights. Other tensors in the file are ignored.
///
/// # Errors
///
/// [`TrainError::Io`], or [`TrainError::Checkpoint`] if the file is damaged, or if a tensor is missing or has another shape.
/// Nothing is changed then.
pub fn load_weights(network: &mut Network, path: &Path) -> Result<(), TrainError> {
    let data = read(path)?;
    let tensors = parse(path, &data)?;
    let state = network.state();
    let values = state.iter().map(|p| tensor(path, &tensors, &p.name, p)).collect::<Result<Vec<_>, _>>()?;
    assign(network, values);
    Ok(())
}

/// What a checkpoint says about itself.
///
/// # Errors
///
/// [`TrainError::Io`], or [`TrainError::Checkpoint`] if the file is damaged or not a checkpoint.
pub fn read_header(path: &Path) -> Result<Header, TrainError> {
    let data = read(path)?;
    parse(path, &data)?;
    header(path, &data)
}

/// A tensor of a file, in PyTorch's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its extents.
    pub shape: Vec<usize>,
    /// Its elements.
    pub values: Vec<f32>,
}

/// The tensors of a checkpoint or a file of weights whose names `wanted` picks. Names are ordered with their numbers as numbers:
/// `layer2.…` stands before `layer10.…`.
///
/// # Errors
///
/// [`TrainError::Io`], or [`TrainError::Checkpoint`] if the file is damaged or a tensor holds something else than `f32`.
pub fn read_tensors(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<Tensor>, TrainError> {
    let data = read(path)?;
    let tensors = parse(path, &data)?;
    let mut found = Vec::new();
    for (name, view) in tensors.iter().filter(|(name, _)| wanted(name)) {
        if view.dtype() != Dtype::F32 {
            return Err(refused(path, format!("'{name}' is {}, it must be F32", view.dtype())));
        }
        found.push(Tensor { name: name.to_owned(), shape: view.shape().to_vec(), values: floats(view.data()) });
    }
    found.sort_by_cached_key(|tensor| natural(&tensor.name));
    Ok(found)
}

/// A name as its stretches of digits and of other characters.
fn natural(name: &str) -> Vec<(Option<u64>, String)> {
    let mut parts: Vec<(Option<u64>, String)> = Vec::new();
    for character in name.chars() {
        let digit = character.is_ascii_digit();
        match parts.last_mut() {
            Some((number, part)) if number.is_some() == digit => part.push(character),
            _ => parts.push((digit.then_some(0), character.to_string())),
        }
    }
    for (number, part) in &mut parts {
        *number = number.map(|_| part.parse().unwrap_or(u64::MAX));
    }
    parts
}

fn refused(path: &Path, rule: impl std::fmt::Display) -> TrainError {
    TrainError::Checkpoint { file: path.display().to_string(), rule: rule.to_string() }
}

fn read(path: &Path) -> Result<Vec<u8>, TrainError> {
    std::fs::read(path).map_err(|error| TrainError::io(path.display(), error))
}

fn parse<'a>(path: &Path, data: &'a [u8]) -> Result<SafeTensors<'a>, TrainError> {
    SafeTensors::deserialize(data)
        .map_err(|error| refused(path, format!("it is damaged or not a safetensors file: {error}")))
}

fn header(path: &Path, data: &[u8]) -> Result<Header, TrainError> {
    let (_, metadata) = SafeTensors::read_metadata(data).map_err(|error| refused(path, error))?;
    let metadata = metadata.metadata().as_ref().ok_or_else(|| refused(path, "it has no metadata"))?;
    let get = |key: &str| metadata.get(key).ok_or_else(|| refused(path, format!("its metadata lack '{key}'")));
    for (key, expected) in [("format", "convrelu"), ("version", "1")] {
        let found = get(key)?;
        if found != expected {
            return Err(refused(path, format!("its {key} is '{found}', it must be '{expected}'")));
        }
    }
    let json = |error: serde_json::Error| refused(path, format!("its metadata are damaged: {error}"));
    Ok(Header {
        config: Config::from_toml(&path.display().to_string(), get("config")?)?,
        isa: get("isa")?.clone(),
        progress: serde_json::from_str(get("progress")?).map_err(json)?,
        history: serde_json::from_str(get("history")?).map_err(json)?,
    })
}

/// A tensor of the shape of a parameter, in the memory order of the parameter.
fn tensor(path: &Path, tensors: &SafeTensors<'_>, name: &str, like: &Parameter) -> Result<Vec<f32>, TrainError> {
    let view = tensors.tensor(name).map_err(|_| refused(path, format!("it lacks the tensor '{name}'")))?;
    if view.dtype() != Dtype::F32 || view.shape() != like.shape {
        let (found, wanted) = (extents(view.shape()), extents(&like.shape));
        let rule = format!("'{name}' is {} of {found}, it must be F32 of {wanted}", view.dtype());
        return Err(refused(path, rule));
    }
    Ok(like.restored(&floats(view.data())))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

fn assign(network: &mut Network, values: Vec<Vec<f32>>) {
    let mut values = values.into_iter();
    network.visit_mut(|parameter| {
        if let Some(value) = values.next() {
            parameter.value.copy_from_slice(&value);
        }
    });
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn write(
    path: &Path,
    tensors: &[(String, &Vec<usize>, Vec<u8>)],
    metadata: HashMap<String, String>,
) -> Result<(), TrainError> {
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes);
        view.map(|view| (name.as_str(), view)).map_err(|error| refused(path, error))
    });
    let views = views.collect::<Result<Vec<_>, _>>()?;
    let data = safetensors::serialize(views, Some(metadata)).map_err(|error| refused(path, error))?;
    files::write(path, &data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_tensors_come_in_natural_order() {
        let path = std::env::temp_dir().join(format!("convrelu-tensors-{}.safetensors", std::process::id()));
        let shape = vec![1, 2];
        let tensors = ["b10.t", "b2.t", "b2.u", "a.t"].map(|name| (name.to_owned(), &shape, bytes(&[1.0, -2.0])));
        write(&path, &tensors, HashMap::new()).unwrap();
        let found = read_tensors(&path, |name| name.ends_with(".t"));
        std::fs::remove_file(&path).unwrap();
        let found = found.unwrap();
        assert_eq!(found.iter().map(|tensor| tensor.name.as_str()).collect::<Vec<_>>(), ["a.t", "b2.t", "b10.t"]);
        assert_eq!((found[0].shape.as_slice(), found[0].values.as_slice()), (&[1, 2][..], &[1.0, -2.0][..]));
    }
}
