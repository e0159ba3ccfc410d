"""ConvReLU for PyTorch: layers, functions, and what turns an existing network into one with ConvReLU layers."""

from . import functional
from .modules import AdaReLU, ConvReLU1d, ConvReLU2d, ConvReLU3d

__all__ = ["AdaReLU", "ConvReLU1d", "ConvReLU2d", "ConvReLU3d", "functional"]
