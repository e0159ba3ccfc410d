//! Runs with their files: going on after an interruption, and checkpoints that are refused.

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;

use super::networks::{bits, data, models};
use crate::train::checkpoint::{load_weights, read_header, save_weights};
use crate::train::data::Source;
use crate::train::models::{Activation, Architecture};
use crate::train::run::{CHECKPOINT, Event, METRICS, WEIGHTS};
use crate::train::*;

/// A directory of its own for a test, removed behind it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("convrelu-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The figures of an epoch but its times.
fn figures(epoch: &Epoch) -> Epoch {
    Epoch { seconds: 0.0, images_per_second: 0.0, ..epoch.clone() }
}

#[test]
fn a_run_goes_on_bit_for_bit() {
    for mut model in models(Activation::Convrelu) {
        if matches!(model.network, Architecture::Vgg16 | Architecture::Resnet18) {
            continue;
        }
        model.dropout = 0.4;
        model = model.relevant();
        model.channels_last = model.network == Architecture::Densenet40;
        let train = data(model.network, 22).with_augment(if model.network == Architecture::TextCnn {
            Augment::default()
        } else {
            Augment { crop_padding: 2, flip: true }
        });
        let test = data(model.network, 5);
        let mut config = Config { model, ..Config::default() };
        (config.train.epochs, config.train.batch, config.train.micro_batch) = (3, 6, Some(3));
        config.train.learning_rate = 0.01;
        let scratch = Scratch::new(&format!("resume-{}", config.model.network));
        let whole = scratch.0.join("whole");
        let mut uninterrupted = Run::open(&whole, &config, [&train, &test], Start::New).unwrap();
        assert!(uninterrupted.train(&train, &test, |_| ControlFlow::Continue(())).unwrap());

        // Broken off in the middle of an epoch, at its last step, and after it; each time by another trainer.
        let parts = scratch.0.join("parts");
        for stop in [2, 5, 4] {
            let mut run = Run::open(&parts, &config, [&train, &test], Start::Resume).unwrap();
            let mut steps = 0;
            let finished = run.train(&train, &test, |event| {
                steps += usize::from(matches!(event, Event::Step(_)));
                if steps == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert!(!finished.unwrap());
        }
        config.train.threads = std::num::NonZeroUsize::new(2);
        let mut run = Run::open(&parts, &config, [&train, &test], Start::Resume).unwrap();
        assert!(run.train(&train, &test, |_| ControlFlow::Continue(())).unwrap());

        let (a, b) = (uninterrupted.trainer(), run.trainer());
        assert_eq!(bits(a.network()), bits(b.network()), "{}", config.model.network);
        let of = |trainer: &Trainer| trainer.history().iter().map(figures).collect::<Vec<_>>();
        assert_eq!(of(a), of(b), "{}", config.model.network);
        assert_eq!(fs::read(whole.join(WEIGHTS)).unwrap(), fs::read(parts.join(WEIGHTS)).unwrap());
        let lines = fs::read_to_string(parts.join(METRICS)).unwrap();
        assert_eq!(lines.lines().count(), 4);
        assert!(lines.starts_with("epoch,loss,accuracy,test_loss,test_accuracy,learning_rate,"), "{lines}");
    }
}

/// A finished run of one epoch.
fn finished(scratch: &Scratch) -> (Config, Dataset, PathBuf) {
    let mut config = Config::default();
    config.data.source = Source::Synthetic;
    (config.train.epochs, config.train.batch, config.train.learning_rate) = (1, 6, 0.01);
    config.model.activation = Activation::Convrelu;
    let data = data(Architecture::SmallCnn, 12);
    let directory = scratch.0.join("run");
    let mut run = Run::open(&directory, &config, [&data; 2], Start::New).unwrap();
    run.train(&data, &data, |_| ControlFlow::Continue(())).unwrap();
    (config, data, directory)
}

#[test]
fn checkpoints_that_do_not_fit_are_refused_whole() {
    let scratch = Scratch::new("refused");
    let (config, data, directory) = finished(&scratch);
    let path = directory.join(CHECKPOINT);
    let good = fs::read(&path).unwrap();
    let mut trainer = Trainer::new(&config, &data).unwrap();
    let before = bits(trainer.network());
    let mut refusal = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let error = trainer.restore(&path).err().map(|error| error.to_string());
        if error.is_some() {
            assert_eq!(bits(trainer.network()), before);
            assert_eq!(trainer.progress(), &Progress::default());
        }
        error
    };
    // Cut off anywhere.
    for len in [0, 7, 8, 100, good.len() / 2, good.len() - 1] {
        let error = refusal(&good[..len]).unwrap_or_default();
        assert!(error.contains("it is damaged or no safetensors file"), "{len}: {error}");
    }
    let mut long = good.clone();
    long.push(0);
    assert!(refusal(&long).is_some());
    // Texts of the same length, so that only what they say is wrong.
    let text = |from: &str, to: &str| {
        let at = good.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    for (from, to, expected) in [
        ("\"format\":\"convrelu\"", "\"format\":\"convnext\"", "its format is 'convnext', it must be 'convrelu'"),
        ("\"version\":\"1\"", "\"version\":\"7\"", "its version is '7', it must be '1'"),
        ("seed = 1", "seed = 2", "it belongs to a run with another configuration"),
        ("\"conv1.weight\"", "\"conv9.weight\"", "it lacks the tensor 'conv1.weight'"),
        ("\"velocity/conv1.weight\"", "\"velocity/conv9.weight\"", "it lacks the tensor 'velocity/conv1.weight'"),
        (r#"\"right\":0"#, r#"\"right\":9"#, "9 examples of 0 cannot have been classified rightly"),
        ("\"progress\":\"{", "\"progress\":\"[", "its metadata are damaged: "),
    ] {
        let error = refusal(&text(from, to)).unwrap_or_default();
        assert!(error.contains(expected), "{from}: {error}");
    }
    assert_eq!(refusal(&good), None);
}

#[test]
fn a_checkpoint_of_another_instruction_set_names_it() {
    let scratch = Scratch::new("isa");
    let (mut config, data, directory) = finished(&scratch);
    config.train.isa = Some("scalar".to_owned());
    let mut trainer = Trainer::new(&config, &data).unwrap();
    let found = trainer.restore(&directory.join(CHECKPOINT)).err().map(|error| error.to_string());
    let header = read_header(&directory.join(CHECKPOINT)).unwrap();
    if header.isa == "scalar" {
        assert_eq!(found, None);
    } else {
        let found = found.unwrap_or_default();
        assert!(found.ends_with(&format!("resume it with --isa {}", header.isa)), "{found}");
    }
}

#[test]
fn a_directory_with_a_run_is_not_overwritten() {
    let scratch = Scratch::new("occupied");
    let (config, data, directory) = finished(&scratch);
    let error = Run::open(&directory, &config, [&data; 2], Start::New).err().unwrap().to_string();
    assert!(error.contains("it holds a run already"), "{error}");
    let mut other = config.clone();
    other.train.seed = 9;
    let error = Run::open(&directory, &other, [&data; 2], Start::Resume).err().unwrap().to_string();
    assert!(error.contains("another configuration"), "{error}");
    assert_eq!(Run::config(&directory).unwrap(), config);
}

#[test]
fn weights_go_from_network_to_network_and_layout_to_layout() {
    let scratch = Scratch::new("weights");
    let path = scratch.0.join("weights.safetensors");
    for model in models(Activation::Convrelu) {
        let data = data(model.network, 1);
        let of = |channels_last, seed| {
            let model = models::ModelConfig { channels_last, ..model.clone() };
            model.build(input(&data), crate::Isa::detect(), seed).unwrap()
        };
        let (first, mut same, mut other) = (of(false, 1), of(false, 2), of(true, 3));
        save_weights(&first, &path).unwrap();
        load_weights(&mut same, &path).unwrap();
        load_weights(&mut other, &path).unwrap();
        assert_eq!(bits(&first), bits(&same), "{}", model.network);
        let canonical = |network: &Network| {
            network.state().iter().flat_map(|p| p.canonical(&p.value)).map(f32::to_bits).collect::<Vec<_>>()
        };
        assert_eq!(canonical(&first), canonical(&other), "{}", model.network);
    }
    let mut smaller =
        models::ModelConfig::default().build(input(&data(Architecture::SmallCnn, 1)), crate::Isa::detect(), 1);
    let error = load_weights(smaller.as_mut().unwrap(), &path).unwrap_err().to_string();
    assert!(error.contains("'conv1.weight' is F32"), "{error}");
}
