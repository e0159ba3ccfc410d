//! What convrelu's trainer writes, burn reads: the same network gives the same outputs.

use burn::store::{ModuleSnapshot, PyTorchToBurnAdapter, SafetensorsStore};
use burn::tensor::{Device, Tensor, TensorData};
use convrelu::Layout;
use convrelu::train::data::{Source, digits};
use convrelu::train::models::{Activation, Architecture, Region};
use convrelu::train::{Config, Mode, Trainer, checkpoint};

use crate::layer::values;
use network::SmallCnn;

#[path = "../../examples/digits/network.rs"]
mod network;

#[test]
fn the_trainers_weights_load() {
    let (train, test) = digits::load().unwrap();
    let mut config = Config::default();
    config.data.source = Source::Digits;
    (config.model.network, config.model.activation, config.model.region) =
        (Architecture::SmallCnn, Activation::Convrelu, Region::First);
    (config.train.epochs, config.train.batch, config.train.learning_rate) = (1, 32, 0.02);
    let mut trainer = Trainer::new(&config, &train).unwrap();
    trainer.epoch(&train, &test, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    assert!(trainer.network().thresholds().iter().any(|&theta| theta != 0.0));

    let directory = std::env::temp_dir().join(format!("convrelu-burn-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("weights.safetensors");
    checkpoint::save_weights(trainer.network(), &path).unwrap();
    let device = Device::flex();
    let mut model = SmallCnn::new(true, &device);
    let mut store = SafetensorsStore::from_file(&path).with_from_adapter(PyTorchToBurnAdapter);
    let loaded = model.load_from(&mut store).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    assert!(loaded.errors.is_empty() && loaded.missing.is_empty() && loaded.unused.is_empty(), "{loaded:?}");
    // Weight and bias of five layers, thresholds of two.
    assert_eq!(loaded.applied.len(), 12);

    let mut images = vec![0.0; 32 * 64];
    images.chunks_exact_mut(64).enumerate().for_each(|(index, image)| test.read(index, None, Layout::Nchw, image));
    let wanted = trainer.network_mut().forward(Mode::Evaluate, &images).unwrap().to_vec();
    let images: Tensor<4> = Tensor::from_data(TensorData::new(images, [32, 1, 8, 8]), &device);
    let found = values(&model.forward(images));
    let largest = wanted.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    for (found, wanted) in found.iter().zip(&wanted) {
        assert!((found - wanted).abs() < 1e-5 * largest, "{found}, not {wanted}");
    }
}
