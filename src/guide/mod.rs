//! The guide. Each page answers one question; the list below names them.
//!
//! The guide exists in the documentation only: no build of the library contains it.

/// The targets of the links, for rustdoc. Each page ends with other targets of its links, for readers of the files. In Markdown the
/// first definition of a link counts, so these stand before the page. `tests/documents.rs` compares the two lists.
macro_rules! links {
    () => {
        "
[a range of channels]: super::layouts#a-range-of-channels
[`adarelu`]: mod@crate::adarelu
[`BackwardInput::linear`]: BackwardInput::linear
[`ConvDescBuilder::groups`]: ConvDescBuilder::groups
[`ConvDescBuilder::input_pitch`]: ConvDescBuilder::input_pitch
[`ConvRelu::backward_input`]: ConvRelu::backward_input
[`ConvRelu::backward_weight`]: ConvRelu::backward_weight
[`ConvRelu::baseline`]: ConvRelu::baseline
[`ConvRelu::forward`]: ConvRelu::forward
[`ConvRelu::new`]: ConvRelu::new
[`ConvRelu::pack_weight`]: ConvRelu::pack_weight
[`ConvRelu::pack_weight_transposed`]: ConvRelu::pack_weight_transposed
[`ConvRelu::with_isa`]: ConvRelu::with_isa
[`ConvRelu::workspace_len`]: ConvRelu::workspace_len
[crate]: crate
[`Epilogue`]: Epilogue
[`Error`]: Error
[`Error::Executor`]: Error::Executor
[`Error::NanThreshold`]: Error::NanThreshold
[`Error::PackedElsewhere`]: Error::PackedElsewhere
[`Executor`]: Executor
[`Executor::run`]: Executor::run
[`Gradient`]: Gradient
[`Isa`]: Isa
[`Isa::BASELINE`]: Isa::BASELINE
[`Isa::detect`]: Isa::detect
[`Layout`]: Layout
[`Layout::Nchw`]: Layout::Nchw
[`Layout::Nhwc`]: Layout::Nhwc
[numerics]: super::numerics
[`Pass::BackwardInputPacked`]: Pass::BackwardInputPacked
[`Pass::ForwardPacked`]: Pass::ForwardPacked
[`reference`]: mod@crate::reference
[`reference::error_bound`]: reference::error_bound
[`reference::gradient_error_bound`]: reference::gradient_error_bound
[`Serial`]: Serial
[speed]: super::speed
[targets]: super::targets
[threads]: super::threads
[`Thresholds::LINEAR`]: Thresholds::LINEAR
[`Thresholds::PerTap`]: Thresholds::PerTap
[`Thresholds::RELU`]: Thresholds::RELU
[`Thresholds::Uniform`]: Thresholds::Uniform
[`transposed`]: mod@crate::transposed
[`Weight::Packed`]: Weight::Packed
[`Weight::Plain`]: Weight::Plain
"
    };
}

/// Modules whose documentation is a Markdown file. The glob brings the names that the pages link to into scope.
macro_rules! pages {
    ($($(#[$attribute:meta])* $page:ident $file:literal)*) => {
        $(
            $(#[$attribute])*
            pub mod $page {
                #![doc = links!()]
                #![doc = include_str!($file)]
                #[allow(unused_imports, reason = "the page links to some of them")]
                use crate::*;
            }
        )*
    };
}

pages! {
    contributing "contributing.md"
    extending "extending.md"
    firmware "firmware.md"
    frameworks "frameworks.md"
    layouts "layouts.md"
    numerics "numerics.md"
    speed "speed.md"
    targets "targets.md"
    threads "threads.md"
    // Its examples and links need the trainer.
    #[cfg(feature = "std")]
    #[doc = "
[`train`]: mod@crate::train
[`train::Config`]: crate::train::Config
[`train::Layer`]: crate::train::Layer
[`train::Run`]: crate::train::Run
[`train::Trainer`]: crate::train::Trainer
"]
    training "training.md"
}
