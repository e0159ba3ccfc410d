"""Convolutions with a trainable activation threshold per weight position (ConvReLU).

`convrelu.torch` has the layer for PyTorch, `convrelu.numpy` the same as functions on arrays.
"""

from ._library import isa, version

__all__ = ["__version__", "isa"]
__version__ = version()
