//! The guide. Each page answers one question; the list below names them.
//!
//! The guide exists in the documentation only: no build of the library contains it.

/// The targets of the links, for rustdoc. Each page ends with other targets of its links, for readers of the files. In Markdown the
/// first definition of a link counts, so these stand before the page. Paths are absolute, because rustdoc looks names up in this module
/// where a page has a list of its own. `tests/documents.rs` compares the two lists.
macro_rules! links {
    () => {
        "
[a range of channels]: crate::guide::layouts#a-range-of-channels
[`adarelu`]: mod@crate::adarelu
[`BackwardInput::linear`]: crate::BackwardInput::linear
[`ConvDescBuilder::groups`]: crate::ConvDescBuilder::groups
[`ConvDescBuilder::input_pitch`]: crate::ConvDescBuilder::input_pitch
[`ConvRelu::backward_input`]: crate::ConvRelu::backward_input
[`ConvRelu::backward_weight`]: crate::ConvRelu::backward_weight
[`ConvRelu::baseline`]: crate::ConvRelu::baseline
[`ConvRelu::forward`]: crate::ConvRelu::forward
[`ConvRelu::new`]: crate::ConvRelu::new
[`ConvRelu::pack_weight`]: crate::ConvRelu::pack_weight
[`ConvRelu::pack_weight_transposed`]: crate::ConvRelu::pack_weight_transposed
[`ConvRelu::with_isa`]: crate::ConvRelu::with_isa
[`ConvRelu::workspace_len`]: crate::ConvRelu::workspace_len
[crate]: crate
[`Epilogue`]: crate::Epilogue
[`Error`]: crate::Error
[`Error::Executor`]: crate::Error::Executor
[`Error::NanThreshold`]: crate::Error::NanThreshold
[`Error::PackedElsewhere`]: crate::Error::PackedElsewhere
[`Executor`]: crate::Executor
[`Executor::run`]: crate::Executor::run
[`Gradient`]: crate::Gradient
[`Isa`]: crate::Isa
[`Isa::BASELINE`]: crate::Isa::BASELINE
[`Isa::detect`]: crate::Isa::detect
[`Layout`]: crate::Layout
[`Layout::Nchw`]: crate::Layout::Nchw
[`Layout::Nhwc`]: crate::Layout::Nhwc
[numerics]: crate::guide::numerics
[`Pass::BackwardInputPacked`]: crate::Pass::BackwardInputPacked
[`Pass::ForwardPacked`]: crate::Pass::ForwardPacked
[`reference`]: mod@crate::reference
[`reference::error_bound`]: crate::reference::error_bound
[`reference::gradient_error_bound`]: crate::reference::gradient_error_bound
[`Serial`]: crate::Serial
[speed]: crate::guide::speed
[targets]: crate::guide::targets
[threads]: crate::guide::threads
[`Thresholds::LINEAR`]: crate::Thresholds::LINEAR
[`Thresholds::PerTap`]: crate::Thresholds::PerTap
[`Thresholds::RELU`]: crate::Thresholds::RELU
[`Thresholds::Uniform`]: crate::Thresholds::Uniform
[`transposed`]: mod@crate::transposed
[`Weight::Packed`]: crate::Weight::Packed
[`Weight::Plain`]: crate::Weight::Plain
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
