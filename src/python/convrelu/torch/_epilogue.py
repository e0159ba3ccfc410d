"""The operator `torch.ops.convrelu.forward_epilogue`: the layer and what comes behind it in one pass, for inference.

It has no derivative: where one may be asked for, the same is computed by the layer and PyTorch's operations behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import _autograd, _onnx, _operators
from ._composition import Epilogue, Geometry, finish
from ._operators import _GEOMETRY, _is_ours, forward_by_kernels, library

library.define(
    "forward_epilogue(Tensor input, Tensor weight, Tensor? thresholds, float threshold, Tensor? bias, Tensor? scale, "
    f"Tensor? shift, Tensor? residual, float low, float high, {_GEOMETRY}) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def _forward(
    input: Tensor,
    weight: Tensor,
    thresholds: Tensor | None,
    threshold: float,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    residual: Tensor | None,
    low: float,
    high: float,
    *geometry: Sequence[int] | int,
) -> Tensor:
    epilogue, operands = Epilogue(scale, shift, residual, low, high), (input, weight, thresholds, threshold, bias)
    if _is_ours(input, weight, thresholds, bias, scale, shift, residual):
        return forward_by_kernels(None, *operands, Geometry(*geometry), epilogue)
    y = finish(_operators._forward(*operands, *geometry), epilogue)
    return y if y.dtype is input.dtype else y.to(input.dtype)


def _fake(input: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    return _operators._forward_fake(input, weight, *rest[:3], *rest[8:])


def conv_relu(
    input: Tensor,
    weight: Tensor,
    thresholds: Tensor | None,
    threshold: float,
    bias: Tensor | None,
    epilogue: Epilogue,
    geometry: Geometry,
) -> Tensor:
    """The layer with its epilogue: in one pass where no derivative can be asked for."""
    operands = (input, weight, thresholds, threshold, bias)
    tensors = [*operands[:3], bias, *epilogue[:3]]
    if torch.onnx.is_in_onnx_export():
        return finish(_onnx.conv_relu(*operands, geometry), epilogue)
    wanted = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    if wanted or torch._C._are_functorch_transforms_active() or _autograd.is_forward_mode():
        return finish(_autograd.conv_relu(*operands, geometry), epilogue)
    if not _autograd.is_eager(*tensors):
        return torch.ops.convrelu.forward_epilogue(*operands, *epilogue, *geometry)
    return _forward(*operands, *epilogue, *geometry)


library.impl("forward_epilogue", _forward, "CompositeExplicitAutograd")
torch.library.register_fake("convrelu::forward_epilogue", _fake, lib=library)
for device in ("cpu", "cuda"):
    torch.library.register_autocast("convrelu::forward_epilogue", device, torch.float32, lib=library)
