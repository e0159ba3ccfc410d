//! Runs with their files: going on after an interruption, and checkpoints that are refused.

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;

use super::networks::{bits, data, models};
use crate::train::checkpoint::{load_weights, read_header, save_weights};
use crate::train::data::Source;
use crate::train::models::{Activation, Architecture};
use crate::train::run::{CHECKPOINT, DATA, Event, METRICS, UNITS, WEIGHTS};
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
        (model.dropout, model.embedding_dropout, model.embedding_deviation) = (0.4, Some(0.2), Some(0.5));
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
        // One network in each memory order, and one with rare gradients.
        if matches!(config.model.network, Architecture::Densenet40 | Architecture::SmallCnn | Architecture::TextCnn) {
            config.train.optimizer = Rule::Adam;
        }
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
                steps += usize::from(matches!(event, Event::Within(EpochEvent::Step(_))));
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
        let layers = b.history()[0].units_by_layer.len();
        for epoch in b.history() {
            let sum = epoch
                .units_by_layer
                .iter()
                .map(|units| [units.dead, units.total])
                .fold([0; 2], |sum, units| [sum[0] + units[0], sum[1] + units[1]]);
            assert_eq!(sum, [epoch.dead_units, epoch.units]);
            assert_eq!((epoch.units_by_layer.len(), epoch.units > 0), (layers, true));
        }
        let lines = fs::read_to_string(parts.join(UNITS)).unwrap();
        assert_eq!(lines.lines().count(), 1 + 3 * layers);
        assert!(lines.starts_with("epoch,layer,dead,total\n1,"), "{lines}");
    }
}

/// All values that are not finite are those of a run that diverged: nothing of them reaches a file.
#[test]
fn a_run_that_diverges_keeps_its_last_good_checkpoint() {
    let scratch = Scratch::new("poisoned");
    let mut config = Config::default();
    (config.train.epochs, config.train.batch, config.train.learning_rate) = (3, 6, 0.01);
    let data = data(Architecture::SmallCnn, 12);
    // A weight, which spoils the loss; and a running mean, which training does not read, but the test would.
    for (name, kind) in [("weight", Kind::Weight), ("buffer", Kind::Buffer)] {
        if kind == Kind::Buffer {
            (config.model.network, config.model.growth, config.model.depth) =
                (Architecture::Densenet40, Some(4), Some(2));
        }
        let directory = scratch.0.join(name);
        let mut run = Run::open(&directory, &config, [&data; 2], Start::New).unwrap();
        let one_epoch = |event: Event<'_>| match event {
            Event::Within(_) => ControlFlow::Continue(()),
            Event::Epoch(_) => ControlFlow::Break(()),
        };
        assert!(!run.train(&data, &data, one_epoch).unwrap());
        let good = fs::read(directory.join(CHECKPOINT)).unwrap();
        run.trainer_mut().network_mut().visit_mut(|parameter| {
            if parameter.kind == kind {
                parameter.value[0] = f32::NAN;
            }
        });
        let result = run.train(&data, &data, |_| ControlFlow::Break(()));
        assert!(matches!(result, Err(TrainError::Diverged { epoch: 2 })), "{name}");
        assert_eq!(fs::read(directory.join(CHECKPOINT)).unwrap(), good);
        assert!(!directory.join(WEIGHTS).exists());
    }
    // Test images that no number holds, while training is well.
    config.model = models::ModelConfig::default();
    let shape = data.shape();
    let huge = Dataset::new("huge", shape, 4, data::Values::Floats(vec![f32::MAX; shape.len()]), vec![0]).unwrap();
    let directory = scratch.0.join("test");
    let mut run = Run::open(&directory, &config, [&data, &huge], Start::New).unwrap();
    let result = run.train(&data, &huge, |_| ControlFlow::Continue(()));
    assert!(matches!(result, Err(TrainError::Diverged { epoch: 1 })));
    assert!(!directory.join(CHECKPOINT).exists() && !directory.join(WEIGHTS).exists());
}

/// Also the test at the end of an epoch can be broken off: the run then goes on with it.
#[test]
fn a_test_that_is_broken_off_is_done_again() {
    let scratch = Scratch::new("tested");
    let mut config = Config::default();
    (config.train.epochs, config.train.batch, config.train.learning_rate) = (1, 6, 0.01);
    let data = data(Architecture::SmallCnn, 12);
    let mut whole = Run::open(&scratch.0.join("whole"), &config, [&data; 2], Start::New).unwrap();
    whole.train(&data, &data, |_| ControlFlow::Continue(())).unwrap();
    let directory = scratch.0.join("parts");
    let mut tests = Vec::new();
    let mut run = Run::open(&directory, &config, [&data; 2], Start::New).unwrap();
    let finished = run.train(&data, &data, |event| match event {
        Event::Within(EpochEvent::Test { examples, of }) => {
            tests.push((examples, of));
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    assert_eq!((finished.unwrap(), tests), (false, vec![(6, 12)]));
    drop(run);
    let mut run = Run::open(&directory, &config, [&data; 2], Start::Resume).unwrap();
    assert_eq!((run.trainer().progress().examples, run.trainer().history().len()), (12, 0));
    assert!(run.train(&data, &data, |_| ControlFlow::Continue(())).unwrap());
    assert_eq!(bits(run.trainer().network()), bits(whole.trainer().network()));
    assert_eq!(figures(&run.trainer().history()[0]), figures(&whole.trainer().history()[0]));
}

/// With batch normalisation, an example alone would be nothing but its own mean.
#[test]
fn no_example_is_normalised_alone() {
    let mut config = Config::default();
    (config.model.network, config.model.growth, config.model.depth) = (Architecture::Densenet40, Some(4), Some(2));
    (config.train.epochs, config.train.batch, config.train.learning_rate) = (1, 4, 0.01);
    let refusal = |config: &Config, data: &Dataset| Trainer::new(config, data).err().unwrap().to_string();
    let rule = "densenet40 normalises over the batch: it must be at least 2";
    let (five, one) = (data(Architecture::Densenet40, 5), data(Architecture::Densenet40, 1));
    let mut single = config.clone();
    single.train.micro_batch = Some(1);
    assert_eq!(refusal(&single, &five), format!("micro-batch is 1: {rule}"));
    single.train.batch = 1;
    assert_eq!(refusal(&single, &five), format!("batch is 1: {rule}"));
    assert!(refusal(&config, &one).ends_with("there must be at least 2 training examples"));

    let examples = |config: &Config, data: &Dataset| {
        let mut trainer = Trainer::new(config, data).unwrap();
        let mut seen = Vec::new();
        let epoch = trainer.epoch(data, data, &mut |event| {
            if let EpochEvent::Step(step) = event {
                seen.push((step.examples, step.of));
            }
            ControlFlow::Continue(())
        });
        assert!(epoch.unwrap().is_some_and(|epoch| epoch.loss > 0.5));
        seen
    };
    // The last of five is left out; of six, nothing is.
    assert_eq!(examples(&config, &five), [(4, 4)]);
    assert_eq!(examples(&config, &data(Architecture::Densenet40, 6)), [(4, 6), (6, 6)]);
    // Where examples are not normalised together, a last one may be alone.
    config.model = models::ModelConfig::default();
    assert_eq!(examples(&config, &five), [(4, 5), (5, 5)]);
    config.train.batch = 1;
    assert!(Trainer::new(&config, &five).is_ok());
}

/// A finished run of one epoch.
fn finished(scratch: &Scratch) -> (Config, Dataset, PathBuf) {
    let mut config = Config::default();
    config.data.source = Source::Synthetic;
    (config.train.epochs, config.train.batch, config.train.learning_rate) = (1, 6, 0.01);
    (config.model.activation, config.train.optimizer) = (Activation::Convrelu, Rule::Adam);
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
        assert!(error.contains("it is damaged or not a safetensors file"), "{len}: {error}");
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
        ("\"square/conv1.weight\"", "\"square/conv9.weight\"", "it lacks the tensor 'square/conv1.weight'"),
        (r#"\"right\":0"#, r#"\"right\":9"#, "it counts 9 right answers, which must not exceed its 0 examples"),
        ("\"progress\":\"{", "\"progress\":\"[", "its metadata are damaged: "),
    ] {
        let error = refusal(&text(from, to)).unwrap_or_default();
        assert!(error.contains(expected), "{from}: {error}");
    }
    assert_eq!(refusal(&good), None);
}

/// Before units were recorded layer by layer, a history had no such field.
#[test]
fn a_run_of_an_earlier_version_goes_on() {
    let scratch = Scratch::new("earlier");
    let (mut config, data, directory) = finished(&scratch);
    let path = directory.join(CHECKPOINT);
    let mut bytes = fs::read(&path).unwrap();
    let key = b"units_by_layer";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap();
    bytes[at..at + key.len()].copy_from_slice(b"other_of_layer");
    fs::write(&path, bytes).unwrap();
    fs::remove_file(directory.join(UNITS)).unwrap();
    config.train.epochs = 2;
    let mut run = Run::open(&directory, &config, [&data; 2], Start::Resume).unwrap();
    assert!(run.train(&data, &data, |_| ControlFlow::Continue(())).unwrap());
    let layers: Vec<_> = run.trainer().history().iter().map(|epoch| epoch.units_by_layer.len()).collect();
    assert_eq!(layers, [0, 4]);
    assert_eq!(read_header(&path).unwrap().history, run.trainer().history());
    let lines = fs::read_to_string(directory.join(UNITS)).unwrap();
    assert!(lines.lines().count() == 5 && lines.lines().skip(1).all(|line| line.starts_with("2,")), "{lines}");
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
    let other_data = super::networks::data(Architecture::SmallCnn, 13);
    let error = Run::open(&directory, &config, [&other_data, &data], Start::Resume).err().unwrap().to_string();
    assert!(error.ends_with("the run has 12 training examples, these data have 13"), "{error}");
    // A run of a version that did not note its data goes on.
    fs::remove_file(directory.join(DATA)).unwrap();
    drop(Run::open(&directory, &config, [&data; 2], Start::Resume).unwrap());
    assert_eq!(Run::inventory(&directory).unwrap(), Some(Inventory::of(&data, &data)));
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

#[test]
fn weights_begin_a_run_that_needs_their_file_no_more() {
    let scratch = Scratch::new("begun");
    let (config, data, directory) = finished(&scratch);
    let begun = scratch.0.join("begun");
    let weights = directory.join(WEIGHTS);
    let run = Run::open(&begun, &config, [&data; 2], Start::Weights(&weights)).unwrap();
    let first = bits(run.trainer().network());
    drop(run);
    fs::remove_file(&weights).unwrap();
    let run = Run::open(&begun, &config, [&data; 2], Start::Resume).unwrap();
    assert_eq!(bits(run.trainer().network()), first);
    assert_eq!(run.trainer().progress(), &Progress::default());
    let new = scratch.0.join("new");
    let missing = Run::open(&new, &config, [&data; 2], Start::Weights(&weights));
    assert!(matches!(missing, Err(TrainError::Io { .. })) && !new.exists());
}

#[test]
fn one_process_at_a_time_writes_a_run() {
    let scratch = Scratch::new("locked");
    let (config, data, directory) = finished(&scratch);
    let open = || Run::open(&directory, &config, [&data; 2], Start::Resume);
    let held = open().unwrap();
    let error = open().err().unwrap().to_string();
    assert!(error.starts_with(&format!("process {} writes the run in ", std::process::id())), "{error}");
    drop(held);
    // What a process that was killed left: its number in the lock, and a file that is not whole.
    fs::write(directory.join("lock"), "4000000000").unwrap();
    fs::write(directory.join(format!("{CHECKPOINT}.123.partial")), "half").unwrap();
    fs::write(directory.join("mine.partial"), "kept").unwrap();
    drop(open().unwrap());
    assert!(!directory.join(format!("{CHECKPOINT}.123.partial")).exists() && directory.join("mine.partial").exists());
}
