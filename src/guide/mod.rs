//! The guide. Each page answers one question; the list below names them.
//!
//! The guide exists in the documentation only: no build of the library contains it.

/// Modules whose documentation is a Markdown file. The glob brings the names that the pages link to into scope.
macro_rules! pages {
    ($($(#[$attribute:meta])* $page:ident $file:literal)*) => {
        $(
            $(#[$attribute])*
            pub mod $page {
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
    training "training.md"
}
