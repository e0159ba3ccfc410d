//! Configurations: what is read can be written and read again, and gives a trainer or an error.
#![no_main]

use std::sync::OnceLock;

use convrelu::train::data::{Values, digits};
use convrelu::train::{Config, Dataset, Shape, Source, Text, Trainer};
use libfuzzer_sys::fuzz_target;

/// Small images, and texts.
fn data() -> &'static [Dataset; 2] {
    static DATA: OnceLock<[Dataset; 2]> = OnceLock::new();
    DATA.get_or_init(|| {
        let values = Values::Tokens { ids: vec![1; 64], text: Text::Characters(9) };
        let text = Dataset::new("text", Shape::new(1, [1, 1, 64]), 2, values, vec![1]);
        [digits::load().expect("it is bundled").1.truncated(2), text.expect("it is well-formed")]
    })
}

fuzz_target!(|text: &str| {
    let config = match Config::from_toml("fuzz", text) {
        Ok(config) => config,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let written = config.to_toml();
    let again = Config::from_toml("written", &written).expect("what was written");
    assert_eq!(again.to_toml(), written);
    // (NaN is not equal to itself.)
    assert!(written.contains("nan") || again == config && again.is_same_run(&config));

    let train = &config.train;
    train.schedule.rate(train.learning_rate, train.epochs / 2, train.epochs);

    let synthetic = config.data.synthetic.unwrap_or_default();
    let [height, width] = synthetic.size;
    let extents = [synthetic.train.max(synthetic.test), synthetic.channels, height, width];
    let small = |len: u128| !(10_000..=1 << 40).contains(&len);
    if config.data.source == Source::Synthetic
        && small(extents.iter().fold(1u128, |len, &extent| len.saturating_mul(extent as u128)))
    {
        let _ = config.data.load();
    }
    let model = &config.model;
    let sizes = [model.growth, model.depth, model.features, model.units, model.embedding];
    // Networks of sensible sizes that build in no time; what their defaults are is large.
    let written_small = sizes.iter().all(|size| size.is_none_or(|size| size <= 4 || size > 1 << 16));
    let name = model.network.to_string();
    if written_small && (name == "small-cnn" || model.units.is_some() && model.features.is_some()) {
        for data in data() {
            if let Err(error) = Trainer::new(&config, data) {
                assert!(!error.to_string().is_empty());
            }
        }
    }
});
