//! What is wrong with the arguments of a layer.

use std::fmt;

use burn::tensor::DType;

/// Why a layer was refused. Its text names the argument, its value and the rule.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// A tensor has another shape than the input and the options ask for.
    Shape {
        /// `"weight"`, `"thresholds"` or `"bias"`.
        argument: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that it must have.
        wanted: Vec<usize>,
        /// What its axes stand for.
        axes: &'static str,
    },
    /// A tensor has elements of another type than the input.
    ElementType {
        /// `"weight"`, `"thresholds"` or `"bias"`.
        argument: &'static str,
        /// The type of its elements.
        found: DType,
        /// The type of the input's elements.
        wanted: DType,
    },
    /// What the kernels refuse: sizes, strides, groups, thresholds that are NaN.
    Kernel(convrelu::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape { argument, found, wanted, axes } => {
                write!(f, "{argument} has the shape {found:?}: it must be {axes}, here {wanted:?}")
            }
            Self::ElementType { argument, found, wanted } => {
                write!(f, "{argument} holds {found:?}: it must hold what the input holds, {wanted:?}")
            }
            Self::Kernel(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Kernel(error) => Some(error),
            _ => None,
        }
    }
}

impl From<convrelu::Error> for Error {
    fn from(error: convrelu::Error) -> Self {
        Self::Kernel(error)
    }
}
