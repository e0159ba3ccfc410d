"""ConvReLU for PyTorch: layers, functions, and what turns an existing network into one with ConvReLU layers."""

from . import functional
from .convert import Conversion, convert, simplify
from .modules import AdaReLU, ConvReLU1d, ConvReLU2d, ConvReLU3d
from .parameters import LayerStatistics, parameter_groups, threshold_statistics

__all__ = [
    "AdaReLU",
    "ConvReLU1d",
    "ConvReLU2d",
    "ConvReLU3d",
    "Conversion",
    "LayerStatistics",
    "convert",
    "functional",
    "parameter_groups",
    "simplify",
    "threshold_statistics",
]
