"""ConvReLU for PyTorch: layers, functions, and what turns an existing network into one with ConvReLU layers."""

from . import functional
from .convert import Conversion, convert, simplify
from .fuse import Fusion, fuse
from .modules import (
    AdaReLU,
    ConvReLU1d,
    ConvReLU2d,
    ConvReLU3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    FusedConvReLU,
)
from .parameters import LayerStatistics, parameter_groups, threshold_statistics

__all__ = [
    "AdaReLU",
    "ConvReLU1d",
    "ConvReLU2d",
    "ConvReLU3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Conversion",
    "FusedConvReLU",
    "Fusion",
    "LayerStatistics",
    "convert",
    "functional",
    "fuse",
    "parameter_groups",
    "simplify",
    "threshold_statistics",
]
