use super::*;
use crate::train::context::Mode;
use crate::train::parameter::Kind;

fn images(size: usize, channels: usize, classes: usize) -> Input {
    Input { shape: Shape::new(channels, [1, size, size]), text: None, classes }
}

fn texts(length: usize, text: Text) -> Input {
    Input { shape: Shape::new(1, [1, 1, length]), text: Some(text), classes: 4 }
}

fn model(network: Architecture, activation: Activation, region: Region) -> ModelConfig {
    ModelConfig { network, activation, region, ..ModelConfig::default() }
}

fn count(network: Architecture, input: Input, activation: Activation, region: Region) -> usize {
    model(network, activation, region).build(input, Isa::detect(), 1).unwrap().parameter_count()
}

#[test]
fn parameters_are_those_of_table_6() {
    use Activation::{Convrelu, LeakyRelu, Prelu, Relu};
    use Region::{All, First};
    for (activation, region, expected) in [
        (Relu, First, 1_035_268),
        (LeakyRelu, First, 1_035_268),
        (LeakyRelu, All, 1_035_268),
        (Prelu, First, 1_035_280),
        (Prelu, All, 1_035_387),
        (Convrelu, First, 1_038_184),
    ] {
        let found = count(Architecture::DensenetCifar, images(32, 3, 100), activation, region);
        assert_eq!(found, expected, "{activation} {region}");
    }
    for (network, classes, expected) in [
        (Architecture::Vgg16, 10, 14_728_266),
        (Architecture::Vgg16, 100, 14_774_436),
        (Architecture::Resnet18, 10, 11_173_962),
        (Architecture::Resnet18, 100, 11_220_132),
    ] {
        assert_eq!(count(network, images(32, 3, classes), Relu, First), expected, "{network} {classes}");
    }
}

#[test]
fn thresholds_stand_where_the_paper_puts_them() {
    let thresholds = |network, input, region| {
        let model = model(network, Activation::Convrelu, region);
        let network = model.build(input, Isa::detect(), 1).unwrap();
        let state = network.state();
        let thresholds = state.into_iter().filter(|parameter| parameter.kind == Kind::Threshold);
        thresholds.map(|p| (p.name.trim_end_matches(".thresholds").to_owned(), p.value.len())).collect::<Vec<_>>()
    };
    let named =
        |expected: &[(&str, usize)]| expected.iter().map(|&(name, len)| (name.to_owned(), len)).collect::<Vec<_>>();
    use Architecture::{Resnet18, SmallCnn, TextCnn, Vgg16};
    let image = images(32, 3, 10);
    assert_eq!(thresholds(SmallCnn, image, Region::First), named(&[("conv2", 144), ("conv3", 144)]));
    assert_eq!(thresholds(SmallCnn, image, Region::Last), named(&[("conv4", 288)]));
    // The activations behind the first two convolutions sit on the inputs of the second and third.
    assert_eq!(thresholds(Vgg16, image, Region::First), named(&[("features.3", 576), ("features.7", 576)]));
    assert_eq!(thresholds(Vgg16, image, Region::All).len(), 12);
    assert_eq!(thresholds(Vgg16, image, Region::Last), named(&[("features.37", 4608), ("features.40", 4608)]));
    // Only inside residual blocks.
    assert_eq!(thresholds(Resnet18, image, Region::First), named(&[("layer1.0.conv2", 576), ("layer1.1.conv2", 576)]));
    assert_eq!(thresholds(Resnet18, image, Region::All).len(), 8);
    let text = texts(1014, Text::Characters(70));
    assert_eq!(thresholds(TextCnn, text, Region::First), named(&[("conv2", 7 * 256), ("conv3", 3 * 256)]));
    assert_eq!(thresholds(TextCnn, text, Region::All).len(), 5);
}

#[test]
fn the_text_network_is_the_published_one() {
    let relu = |features, units| {
        let model = ModelConfig {
            features: Some(features),
            units: Some(units),
            ..model(Architecture::TextCnn, Activation::Relu, Region::First)
        };
        model.build(texts(1014, Text::Characters(70)), Isa::detect(), 1).unwrap().parameter_count()
    };
    let expected = |f: usize, u: usize| {
        let convolutions = 70 * 7 * f + f * f * 7 + 4 * f * f * 3 + 6 * f;
        // 34 positions are left of 1014.
        convolutions + 34 * f * u + u + u * u + u + 4 * u + 4
    };
    assert_eq!(relu(256, 1024), expected(256, 1024));
    assert_eq!(relu(64, 32), expected(64, 32));
}

/// Every network with an input that suits a test.
fn small() -> Vec<(ModelConfig, Input)> {
    Architecture::ALL_VALUES
        .iter()
        .flat_map(|&network| {
            let model = ModelConfig {
                growth: Some(4),
                depth: Some(2),
                features: Some(8),
                units: Some(16),
                embedding: Some(6),
                ..model(network, Activation::Relu, Region::First)
            }
            .relevant();
            match network {
                Architecture::TextCnn => {
                    let characters = ModelConfig { embedding: None, ..model.clone() };
                    vec![(characters, texts(130, Text::Characters(70))), (model, texts(30, Text::Words(40)))]
                }
                _ => vec![(model, images(32, 3, 4))],
            }
        })
        .collect()
}

fn ramp(len: usize, text: bool) -> Vec<f32> {
    (0..len).map(|i| if text { (i * 7 % 39) as f32 } else { libm::sinf((i * i % 1013) as f32) }).collect()
}

#[test]
fn zero_thresholds_compute_what_relu_does() {
    for (model, input) in small() {
        let outputs = [Activation::Relu, Activation::Convrelu, Activation::Adarelu].map(|activation| {
            let model = ModelConfig { activation, region: Region::All, ..model.clone() }.relevant();
            let mut network = model.build(input, Isa::detect(), 7).unwrap();
            let images = ramp(3 * input.shape.len(), input.text.is_some());
            network.forward(Mode::Train, &images).unwrap().to_vec()
        });
        let scale = outputs[0].iter().fold(1.0f32, |scale, x| scale.max(x.abs()));
        for other in &outputs[1..] {
            for (a, b) in outputs[0].iter().zip(other) {
                assert!((a - b).abs() <= 1e-3 * scale, "{}: {a} {b}", model.network);
            }
        }
    }
}

#[test]
fn layouts_compute_the_same() {
    for (model, input) in small() {
        let outputs = [false, true].map(|channels_last| {
            let model = ModelConfig { channels_last, activation: Activation::Convrelu, ..model.clone() };
            let mut network = model.build(input, Isa::detect(), 7).unwrap();
            let (batch, shape) = (2, input.shape);
            let mut images = ramp(batch * shape.len(), input.text.is_some());
            if channels_last {
                let first = images.clone();
                let (c, p) = (shape.channels, shape.positions());
                for (from, to) in first.chunks_exact(c * p).zip(images.chunks_exact_mut(c * p)) {
                    crate::strided::transpose(from, p, to, c, c, p);
                }
            }
            network.forward(Mode::Train, &images).unwrap().to_vec()
        });
        let scale = outputs[0].iter().fold(1.0f32, |scale, x| scale.max(x.abs()));
        for (a, b) in outputs[0].iter().zip(&outputs[1]) {
            assert!((a - b).abs() <= 1e-3 * scale, "{}: {a} {b}", model.network);
        }
    }
}

#[test]
fn names_are_unique() {
    for (model, input) in small() {
        for activation in Activation::ALL_VALUES {
            let model = ModelConfig { activation: *activation, region: Region::All, ..model.clone() }.relevant();
            let network = model.build(input, Isa::detect(), 1).unwrap();
            let mut names: Vec<_> = network.state().iter().map(|parameter| parameter.name.clone()).collect();
            let all = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), all, "{} {activation}", model.network);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let refusal = |model: ModelConfig, input| model.build(input, Isa::detect(), 1).err().unwrap().to_string();
    let relu = |network| model(network, Activation::Relu, Region::First);
    assert_eq!(
        refusal(relu(Architecture::SmallCnn), images(3, 1, 2)),
        "network is small-cnn: it pools, so images must have at least 4 × 4 pixels, these have 3 × 3"
    );
    assert_eq!(
        refusal(relu(Architecture::Vgg16), images(31, 3, 2)),
        "network is vgg16: it pools, so images must have at least 32 × 32 pixels, these have 31 × 31"
    );
    assert_eq!(
        refusal(relu(Architecture::TextCnn), texts(122, Text::Characters(70))),
        "length is 122: text-cnn pools, so texts must have at least 123 tokens"
    );
    assert!(relu(Architecture::TextCnn).build(texts(27, Text::Words(9)), Isa::detect(), 1).is_ok());
    assert_eq!(
        refusal(relu(Architecture::TextCnn), images(32, 1, 2)),
        "network is text-cnn: it needs text, and the data set is images"
    );
    assert_eq!(
        refusal(relu(Architecture::Vgg16), texts(200, Text::Words(9))),
        "network is vgg16: it needs images, and the data set is text"
    );
    let growth = ModelConfig { growth: Some(0), ..relu(Architecture::Densenet40) };
    assert_eq!(refusal(growth, images(32, 3, 2)), "growth is 0: it must be from 1 to 65536");
    assert_eq!(
        "resnet".parse::<Architecture>().unwrap_err().to_string(),
        "network is resnet: it must be one of small-cnn, densenet-cifar, densenet40, vgg16, resnet18, text-cnn"
    );
}

#[test]
fn settings_without_use_are_refused() {
    let refusal = |model: ModelConfig, input| model.build(input, Isa::detect(), 1).err().unwrap().to_string();
    let image = images(32, 3, 2);
    let resnet = model(Architecture::Resnet18, Activation::Relu, Region::First);
    let prelu = model(Architecture::SmallCnn, Activation::Prelu, Region::First);
    let forty = model(Architecture::Densenet40, Activation::Relu, Region::First);
    let network = |name: &str, network: &str| format!("{name}: the network {network} has no such setting");
    for (model, expected) in [
        (ModelConfig { growth: Some(4), ..resnet.clone() }, network("growth is 4", "resnet18")),
        (ModelConfig { depth: Some(4), ..resnet.clone() }, network("depth is 4", "resnet18")),
        (ModelConfig { units: Some(4), ..forty.clone() }, network("units is 4", "densenet40")),
        (ModelConfig { features: Some(4), ..forty.clone() }, network("features is 4", "densenet40")),
        (ModelConfig { embedding: Some(4), ..forty.clone() }, network("embedding is 4", "densenet40")),
        (
            ModelConfig { embedding_deviation: Some(0.25), ..forty.clone() },
            network("embedding-deviation is 0.25", "densenet40"),
        ),
        (
            ModelConfig { embedding_dropout: Some(0.5), ..forty.clone() },
            network("embedding-dropout is 0.5", "densenet40"),
        ),
        (ModelConfig { dropout: 0.25, ..forty }, network("dropout is 0.25", "densenet40")),
        (
            ModelConfig { threshold_init: ThresholdInit::Gaussian(0.1), ..resnet.clone() },
            "threshold-init is gaussian:0.1: the activation relu has no such setting".to_owned(),
        ),
        (
            ModelConfig { threshold_init: ThresholdInit::Glorot, ..prelu },
            "threshold-init is glorot: the activation prelu has no such setting".to_owned(),
        ),
        (
            ModelConfig { sharing: Sharing::Channel, ..resnet.clone() },
            "sharing is channel: the activation relu has no such setting".to_owned(),
        ),
        (
            ModelConfig { region: Region::All, ..resnet },
            "region is all: ReLU stands everywhere, the region is that of another activation".to_owned(),
        ),
    ] {
        assert_eq!(refusal(model.clone(), image), expected);
        assert!(model.relevant().build(image, Isa::detect(), 1).is_ok());
    }
    let text = model(Architecture::TextCnn, Activation::Relu, Region::First);
    let characters = |model| refusal(model, texts(130, Text::Characters(70)));
    assert_eq!(
        characters(ModelConfig { embedding_deviation: Some(0.5), ..text.clone() }),
        "embedding-deviation is 0.5: characters come one-hot, only words are embedded"
    );
    assert_eq!(
        characters(ModelConfig { embedding_dropout: Some(0.5), ..text.clone() }),
        "embedding-dropout is 0.5: characters come one-hot, only words are embedded"
    );
    assert_eq!(
        refusal(ModelConfig { embedding_dropout: Some(1.0), ..text.clone() }, texts(30, Text::Words(9))),
        "embedding-dropout is 1: it must be at least 0 and less than 1"
    );
    for deviation in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let model = ModelConfig { embedding_deviation: Some(deviation), ..text.clone() };
        let expected = format!("embedding-deviation is {deviation}: it must be a finite number greater than 0");
        assert_eq!(refusal(model, texts(30, Text::Words(9))), expected);
    }
    assert_eq!(
        characters(ModelConfig { embedding: Some(8), ..text }),
        "embedding is 8: characters come one-hot, only words are embedded"
    );
}
