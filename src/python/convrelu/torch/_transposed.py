"""The operators `torch.ops.convrelu.conv_transpose` and `conv_transpose_backward`.

float32 on the CPU goes to the kernels of the crate; everything else, and derivatives of derivatives, to PyTorch's own.

Shapes: `input` `(N, I, *S)`, `weight` `(I, O / groups, *K)`, `bias` `(O,)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _layer
from .._layer import LINEAR, NCHW
from ._autograd import is_eager, is_forward_mode, without_autocast
from ._layout import empty, laid, layout_of, to_last
from ._operators import _address, _is_ours, _parameters, autocast_off, is_autocast_enabled, library
from ._threads import TEAM

_GEOMETRY = "SymInt[] stride, SymInt[] padding, SymInt[] output_padding, SymInt[] dilation, SymInt groups"
_TAGS = (torch.Tag.pt2_compliant_tag,)

library.define(f"conv_transpose(Tensor input, Tensor weight, Tensor? bias, {_GEOMETRY}) -> Tensor", tags=_TAGS)
# A gradient that is not wanted is an empty tensor.
library.define(
    f"conv_transpose_backward(Tensor grad_output, Tensor input, Tensor weight, {_GEOMETRY}, bool[] wanted)"
    " -> (Tensor, Tensor, Tensor)",
    tags=_TAGS,
)


def _output_shape(input: Tensor, weight: Tensor, geometry: Sequence[Any]) -> list[int]:
    stride, padding, output_padding, dilation, groups = geometry
    axes = zip(input.shape[2:], weight.shape[2:], stride, padding, output_padding, dilation, strict=True)
    extents = [(n - 1) * s - 2 * p + d * (k - 1) + extra + 1 for n, k, s, p, extra, d in axes]
    if any(extent < 1 for extent in extents):
        size = tuple(input.shape[2:])
        raise ValueError(f"padding is {tuple(padding)}: it cuts off all of the output of an input of the size {size}")
    return [input.shape[0], weight.shape[1] * groups, *extents]


def _plan(layout: int, input: Tensor, weight: Tensor, geometry: Sequence[Any], pitches: tuple[int, int]) -> _layer.Plan:
    stride, padding, output_padding, dilation, groups = geometry
    batch, channels, *size = input.shape
    return _layer.plan(
        layout, batch, channels, weight.shape[1] * groups, groups, tuple(size), tuple(weight.shape[2:]), tuple(stride),
        tuple(dilation), tuple(padding), tuple(padding), *pitches, torch.get_num_threads(), tuple(output_padding), TEAM,
    )  # fmt: skip


def _forward(input: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any) -> Tensor:
    layout = layout_of(input)
    stride, padding, output_padding, dilation, groups = geometry
    if not _is_ours(input, weight, bias):
        _output_shape(input, weight, geometry)
        operands = (input, weight, bias, stride, padding, dilation, True, output_padding, groups)
        y = torch.ops.aten.convolution.default(*operands)
        return y.contiguous() if layout == NCHW else to_last(y)
    input, pitch = laid(input, layout)
    there, _ = _parameters(weight, None, layout)
    bias = None if bias is None else bias.contiguous()
    plan = _plan(layout, input, weight, geometry, (pitch, 0))
    y = empty(input, plan.output_shape, layout)
    plan.forward(input.data_ptr(), there.data_ptr(), None, LINEAR, _address(bias), y.data_ptr())
    return y


def _gradients(input: Tensor, weight: Tensor, groups: int, layout: int, wanted: Sequence[bool]) -> tuple[Tensor, ...]:
    """Room for the gradients of input, weight and bias; for one that is not wanted none."""
    return (
        empty(input, input.shape, layout) if wanted[0] else input.new_empty((0,)),
        empty(weight, weight.shape, layout) if wanted[1] else input.new_empty((0,)),
        input.new_empty(weight.shape[1] * groups) if wanted[2] else input.new_empty((0,)),
    )


def _theirs(grad_output: Tensor, input: Tensor, weight: Tensor, *rest: Any) -> Any:
    """PyTorch's gradients, of which it knows the derivatives, also of mapped operands."""
    stride, padding, output_padding, dilation, groups, wanted = rest
    sizes = [weight.shape[1] * groups]
    options = (sizes, stride, padding, dilation, True, output_padding, groups, list(wanted))
    return torch.ops.aten.convolution_backward.default(grad_output, input, weight, *options)


def _backward(grad_output: Tensor, input: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *geometry, wanted = rest
    layout = layout_of(input)
    rooms = _gradients(input, weight, geometry[4], layout, wanted)
    if not _is_ours(grad_output, input, weight):
        for room, gradient, want in zip(rooms, _theirs(grad_output, input, weight, *geometry, wanted), wanted, strict=True):
            if want:
                room.copy_(gradient)
        return rooms
    if laid(input, layout)[1] != 0:
        # The kernels write the gradient of the input as the input lies: dense.
        input = input.contiguous() if layout == NCHW else to_last(input)
    input, _ = laid(input, layout)
    grad_output, pitch = laid(grad_output, layout)
    there, _ = _parameters(weight, None, layout)
    plan = _plan(layout, input, weight, geometry, (0, pitch))
    x, g = input.data_ptr(), grad_output.data_ptr()
    into = [_address(room) if want else None for room, want in zip(rooms, wanted, strict=True)]
    if wanted[1] or wanted[2]:
        plan.backward_weight(x, None, LINEAR, g, into[1], into[2])
    if wanted[0]:
        plan.backward_input(x, there.data_ptr(), None, LINEAR, g, into[0], None)
    return rooms


def _forward_fake(input: Tensor, weight: Tensor, bias: Any, *geometry: Any) -> Tensor:
    return empty(input, _output_shape(input, weight, geometry), layout_of(input))


def _backward_fake(grad_output: Tensor, input: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return _gradients(input, weight, rest[4], layout_of(input), rest[5])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    input, weight, _, *ctx.geometry = inputs
    ctx.save_for_backward(input, weight)


def _derive(ctx: Any, grad_output: Tensor, operator: Any = torch.ops.convrelu.conv_transpose_backward) -> tuple[Any, ...]:
    wanted = list(ctx.needs_input_grad[:3])
    found = operator(grad_output, *ctx.saved_tensors, *ctx.geometry, wanted)
    return *(gradient if want else None for gradient, want in zip(found, wanted, strict=True)), *[None] * 5


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    grad_output, input, weight, *ctx.geometry, ctx.wanted = inputs
    ctx.save_for_backward(grad_output, input, weight)


def _derive_backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
    """Derivatives of the gradients: of PyTorch's, which compute the same."""
    graph = torch.is_grad_enabled()
    needs = ctx.needs_input_grad[:3]
    with torch.enable_grad(), autocast_off(ctx.saved_tensors[0]):
        operands = [
            (tensor.view_as(tensor) if graph else tensor.detach().requires_grad_()) if need else tensor
            for tensor, need in zip(ctx.saved_tensors, needs, strict=True)
        ]
        found = _theirs(*operands, *ctx.geometry, ctx.wanted)
        pairs = zip(found, cotangents, ctx.wanted, strict=True)
        pairs = [(g, c) for g, c, want in pairs if want and c is not None and g.requires_grad]
        sources = [operand for operand, need in zip(operands, needs, strict=True) if need]
        given, along = [g for g, _ in pairs], [c for _, c in pairs]
        results = iter(torch.autograd.grad(given, sources, along, create_graph=graph, allow_unused=True))
    return *(next(results) if need else None for need in needs), *[None] * 6


class _Eager(torch.autograd.Function):
    """The operator without the dispatcher."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        _setup(ctx, inputs, None)
        return _forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
        if torch._C._functorch.is_legacy_batchedtensor(grad_output) or torch._C._are_functorch_transforms_active():
            return _derive(ctx, grad_output, _theirs)
        # With a graph, the gradients are to have derivatives of their own.
        return _derive(ctx, grad_output) if torch.is_grad_enabled() else _derive(ctx, grad_output, _backward)


def conv_transpose(input: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any) -> Tensor:
    """`torch.ops.convrelu.conv_transpose`, on the shortest way there is."""
    if torch.onnx.is_in_onnx_export() or torch._C._are_functorch_transforms_active() or is_forward_mode():
        if is_autocast_enabled(input.device.type):
            return without_autocast(conv_transpose, input, weight, bias, *geometry)
        # Nodes of the standard, and a function that transforms know.
        stride, padding, output_padding, dilation, groups = geometry
        function = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)[input.dim() - 3]
        return function(input, weight, bias, stride, padding, output_padding, groups, dilation)
    if not is_eager(input, weight, bias):
        return torch.ops.convrelu.conv_transpose(input, weight, bias, *geometry)
    return _Eager.apply(input, weight, bias, *geometry)


for name, implementation in (("conv_transpose", _forward), ("conv_transpose_backward", _backward)):
    library.impl(name, implementation, "CompositeExplicitAutograd")
torch.library.register_fake("convrelu::conv_transpose", _forward_fake, lib=library)
torch.library.register_fake("convrelu::conv_transpose_backward", _backward_fake, lib=library)
torch.library.register_autograd("convrelu::conv_transpose", _derive, setup_context=_setup, lib=library)
torch.library.register_autograd("convrelu::conv_transpose_backward", _derive_backward, setup_context=_setup_backward, lib=library)
for device in ("cpu", "cuda"):
    for name in ("convrelu::conv_transpose", "convrelu::conv_transpose_backward"):
        torch.library.register_autocast(name, device, torch.float32, lib=library)
