//! What a data set must be good for once it was read.

use convrelu::Layout;
use convrelu::train::{Dataset, TrainError};

/// Every example can be read, every label names a class, and every error can be shown.
pub(crate) fn check(loaded: Result<(Dataset, Dataset), TrainError>) {
    match loaded {
        Ok((train, test)) => {
            for data in [train, test] {
                assert!(!data.is_empty());
                let mut values = vec![0.0; data.shape().len()];
                for index in 0..data.len() {
                    assert!(data.label(index) < data.classes());
                    for layout in [Layout::Nchw, Layout::Nhwc] {
                        data.read(index, None, layout, &mut values);
                    }
                    assert!(values.iter().all(|value| value.is_finite()));
                }
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
