//! Enumerations with names.

/// Implements `Display` and `FromStr` with the names that the enum has in files.
macro_rules! named {
    ($type:ident, $what:literal, [$($variant:ident = $name:literal),* $(,)?]) => {
        impl $type {
            /// All of them.
            pub const ALL_VALUES: &'static [Self] = &[$(Self::$variant),*];

            /// All names, for help and messages.
            pub fn names() -> String {
                [$($name),*].join(", ")
            }

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
                let rule = || format!("it must be one of {}", Self::names());
                found.ok_or_else(|| $crate::train::TrainError::setting($what, name, rule()))
            }
        }
    };
}
pub(super) use named;

/// An enumeration that is a table: a line for each member, with its name and the entry of its own file.
macro_rules! table {
    (
        $(#[$meta:meta])*
        pub enum $type:ident: $entry:ty, $what:literal {
            $($(#[$doc:meta])* $variant:ident = $name:literal => $value:path),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $type {
            $($(#[$doc])* #[serde(rename = $name)] $variant),*
        }

        named!($type, $what, [$($variant = $name),*]);

        impl $type {
            /// The entry of its file.
            const fn entry(self) -> &'static $entry {
                match self { $(Self::$variant => &$value),* }
            }
        }
    };
}
pub(super) use table;
