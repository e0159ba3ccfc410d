//! Checkpoints: files of any bytes, and files of any header before the tensors of a good one. What is refused changes
//! nothing; what is taken over can be trained on and saved.
//!
//! The first byte says which.
#![no_main]

use std::cell::RefCell;
use std::fs;
use std::ops::ControlFlow;

use convrelu::train::data::digits;
use convrelu::train::{Config, Dataset, EpochEvent, Trainer, checkpoint};
use libfuzzer_sys::fuzz_target;

#[path = "common/mod.rs"]
mod common;

struct State {
    data: Dataset,
    trainer: Trainer,
    /// The tensors of a good checkpoint.
    tensors: Vec<u8>,
}

impl State {
    fn new() -> Self {
        let data = digits::load().expect("it is bundled").1.truncated(4);
        let mut config = Config::default();
        (config.train.batch, config.train.epochs) = (2, 3);
        // The same on every machine.
        config.train.isa = Some("scalar".to_owned());
        let mut trainer = Trainer::new(&config, &data).expect("a good configuration");
        trainer.epoch(&data, &data, &mut |_| ControlFlow::Continue(())).expect("a good start");
        let path = common::write("good", "");
        trainer.save(&path).expect("room for it");
        let whole = fs::read(path).expect("it was written");
        let header = u64::from_le_bytes(*whole.first_chunk().expect("a length")) as usize;
        // The seed of the second kind.
        common::write("header.json", &whole[8..8 + header]);
        Self { data, trainer, tensors: whole[8 + header..].to_vec() }
    }
}

/// All that a checkpoint holds of a trainer, in bits.
fn snapshot(trainer: &Trainer) -> impl PartialEq + use<> {
    let state = trainer.network().state();
    let bits: Vec<u32> = state.iter().flat_map(|parameter| &parameter.value).map(|value| value.to_bits()).collect();
    (bits, format!("{:?}{:?}", trainer.progress(), trainer.history()))
}

fuzz_target!(|input: &[u8]| {
    thread_local!(static STATE: RefCell<State> = RefCell::new(State::new()));
    let Some((&mode, contents)) = input.split_first() else { return };
    STATE.with_borrow_mut(|State { data, trainer, tensors }| {
        let path = if mode & 1 == 0 {
            common::write("checkpoint", contents)
        } else {
            let length = (contents.len() as u64).to_le_bytes();
            common::write("checkpoint", [&length, contents, tensors].concat())
        };
        let header = checkpoint::read_header(&path);
        let tensors = checkpoint::read_tensors(&path, |_| true);
        if let (Err(header), Err(tensors)) = (&header, &tensors) {
            assert!(!header.to_string().is_empty() && !tensors.to_string().is_empty());
        }

        let before = snapshot(trainer);
        if checkpoint::load_weights(trainer.network_mut(), &path).is_err() {
            assert!(snapshot(trainer) == before, "weights that were refused");
        }
        let before = snapshot(trainer);
        if trainer.restore(&path).is_err() {
            assert!(snapshot(trainer) == before, "a checkpoint that was refused");
            return;
        }
        assert!(header.is_ok() && tensors.is_ok());
        let mut steps = 0;
        let observe = &mut |_: EpochEvent<'_>| {
            steps += 1;
            if steps < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        if let Err(error) = trainer.epoch(data, data, observe) {
            assert!(!error.to_string().is_empty());
        }
        trainer.save(&path).expect("a trainer that can be saved");
    });
});
