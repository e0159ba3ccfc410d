//! Enumerations with names.

/// Implements `Display` and `FromStr` with the names that the enum has in files.
macro_rules! named {
    ($type:ident, $what:literal, [$($variant:ident = $name:literal),* $(,)?]) => {
        impl $type {
            /// All of them.
            pub const ALL_VALUES: &'static [Self] = &[$(Self::$variant),*];

            /// The name in files and on the command line.
            pub const fn key(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.key())
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::train::TrainError;

            fn from_str(name: &str) -> Result<Self, $crate::train::TrainError> {
                let found = Self::ALL_VALUES.iter().copied().find(|value| value.key() == name);
                found.ok_or_else(|| $crate::train::TrainError::setting($what, name, concat!("it must be one of", $(" ", $name),*)))
            }
        }
    };
}
pub(super) use named;
