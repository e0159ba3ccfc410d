"""The operators `torch.ops.convrelu.forward` and `torch.ops.convrelu.backward`: kernels, fake kernels, derivatives, autocast.

float32 on the CPU goes to the kernels of the crate, everything else to the composition.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _layer
from .._layer import NCHW
from . import _composition
from ._composition import Epilogue, Geometry
from ._layout import empty, laid, layout_of, to_last
from ._threads import TEAM

_GEOMETRY = "SymInt[] stride, SymInt[] padding_before, SymInt[] padding_after, SymInt[] dilation, SymInt groups"

library = torch.library.Library("convrelu", "DEF")
library.define(
    f"forward(Tensor input, Tensor weight, Tensor? thresholds, float threshold, Tensor? bias, {_GEOMETRY}) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
# A gradient that is not wanted is an empty tensor.
library.define(
    f"backward(Tensor grad_output, Tensor input, Tensor weight, Tensor? thresholds, float threshold, {_GEOMETRY}, bool[] wanted)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def _is_ours(*tensors: Tensor | None) -> bool:
    """Whether the kernels compute these operands: all float32 on the CPU."""
    return all(tensor is None or (tensor.dtype is torch.float32 and tensor.is_cpu) for tensor in tensors)


def is_autocast_enabled(device: str) -> bool:
    """As PyTorch's function of this name, which does not take types of devices without autocast (`"meta"`)."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def autocast_off(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """For derivatives of derivatives, made of PyTorch's operations: autocast would compute their products in half precision."""
    device = tensor.device.type
    return torch.autocast(device, enabled=False) if is_autocast_enabled(device) else contextlib.nullcontext()


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _parameters(weight: Tensor | None, thresholds: Tensor | None, layout: int) -> tuple[Tensor | None, Tensor | None]:
    """Weight `(O, I, *K)` and thresholds `(C, *K)` as the kernels of a layout read them."""
    if layout == NCHW:
        return None if weight is None else weight.contiguous(), None if thresholds is None else thresholds.contiguous()
    if weight is not None and laid(weight, layout)[1] != 0:
        weight = to_last(weight)
    elif weight is not None:
        weight = laid(weight, layout)[0]
    return weight, None if thresholds is None else thresholds.movedim(0, -1).contiguous()


def _check_numbers(thresholds: Tensor | None) -> None:
    """What the kernels check themselves. Not on other devices, which would have to wait for the answer."""
    if thresholds is not None and thresholds.device.type == "cpu" and bool(torch.isnan(thresholds).any()):
        raise ValueError("thresholds holds NaN: a threshold must be ordered")


def _forward(
    input: Tensor,
    weight: Tensor,
    thresholds: Tensor | None,
    threshold: float,
    bias: Tensor | None,
    stride: Sequence[int],
    padding_before: Sequence[int],
    padding_after: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    geometry = Geometry(stride, padding_before, padding_after, dilation, groups)
    if _is_ours(input, weight, thresholds, bias):
        return forward_by_kernels(None, input, weight, thresholds, threshold, bias, geometry)
    output_shape(input, weight, *geometry[:4])
    _check_numbers(thresholds)
    y = _composition.forward(input, weight, thresholds, threshold, bias, geometry)
    return y.contiguous() if layout_of(input) == NCHW else to_last(y)


def forward_by_kernels(
    out: Tensor | None,
    input: Tensor,
    weight: Tensor,
    thresholds: Tensor | None,
    threshold: float,
    bias: Tensor | None,
    geometry: Geometry,
    epilogue: Epilogue | None = None,
) -> Tensor:
    """The output, in `out` where that is given: without a copy where it lies like the input, or is a slice of such a tensor.

    All are float32 on the CPU.
    """
    layout = layout_of(input)
    there, output_pitch = (None, 0) if out is None else laid(out, layout)
    ending = None
    if epilogue is not None:
        scale, shift, residual = epilogue.scale, epilogue.shift, epilogue.residual
        scale, shift = None if scale is None else scale.contiguous(), None if shift is None else shift.contiguous()
        if residual is not None:
            # The kernels read it with the output's pitch.
            residual, pitch = laid(residual, layout)
            if pitch != 0:
                residual = residual.contiguous() if layout == NCHW else to_last(residual)
            there, output_pitch = (there, 0) if output_pitch == 0 else (None, 0)
        ending = _layer.Epilogue(_address(scale), _address(shift), _address(residual), epilogue.low, epilogue.high)
    input, input_pitch = laid(input, layout)
    weight, thresholds = _parameters(weight, thresholds, layout)
    bias = None if bias is None else bias.contiguous()
    plan = _plan(layout, input, weight.shape, geometry, input_pitch, output_pitch)
    y = empty(input, plan.output_shape, layout) if there is None else there
    operands = (input.data_ptr(), weight.data_ptr(), _address(thresholds), threshold, _address(bias), y.data_ptr())
    plan.forward(*operands, ending)
    if out is not None and there is not out:
        out.copy_(y)
    return y if out is None else out


def _plan(
    layout: int, input: Tensor, weight: Sequence[int], geometry: Geometry, input_pitch: int, output_pitch: int
) -> _layer.Plan:
    batch, channels, *size = input.shape
    return _layer.plan(
        layout,
        batch,
        channels,
        weight[0],
        geometry.groups,
        tuple(size),
        tuple(weight[2:]),
        tuple(geometry.stride),
        tuple(geometry.dilation),
        tuple(geometry.padding_before),
        tuple(geometry.padding_after),
        input_pitch,
        output_pitch,
        torch.get_num_threads(),
        team=TEAM,
    )


def _backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    thresholds: Tensor | None,
    threshold: float,
    stride: Sequence[int],
    padding_before: Sequence[int],
    padding_after: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Tensor, ...]:
    geometry = Geometry(stride, padding_before, padding_after, dilation, groups)
    layout = layout_of(input)
    rooms = _gradients(input, weight, thresholds, layout, wanted)
    if not _is_ours(grad_output, input, weight, thresholds):
        found = _composition.backward(grad_output, input, weight, thresholds, threshold, geometry, wanted)
        for room, gradient in zip(rooms, found, strict=True):
            if gradient is not None:
                room.copy_(gradient)
        return rooms
    input, input_pitch = laid(input, layout)
    grad_output, output_pitch = laid(grad_output, layout)
    weight_there, thresholds = _parameters(weight, thresholds, layout)
    into = [_address(room) if want else None for room, want in zip(rooms, wanted, strict=True)]
    x, g, theta = input.data_ptr(), grad_output.data_ptr(), _address(thresholds)
    plan = _plan(layout, input, weight.shape, geometry, input_pitch, output_pitch)
    if wanted[2] or wanted[3]:
        plan.backward_weight(x, theta, threshold, g, into[2], into[3])
    if wanted[0] or wanted[1]:
        if wanted[0] and input_pitch != 0:
            # The kernels write the gradient of the input as the input lies.
            dense, wide = rooms[0], input.new_empty(plan.input).as_strided(input.shape, input.stride())
            plan.backward_input(x, weight_there.data_ptr(), theta, threshold, g, wide.data_ptr(), into[1])
            dense.copy_(wide)
        else:
            plan.backward_input(x, weight_there.data_ptr(), theta, threshold, g, into[0], into[1])
    return rooms


def _gradients(
    input: Tensor, weight: Tensor, thresholds: Tensor | None, layout: int, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Room for the gradients, those of input and weight in the layout; for one that is not wanted none."""
    nothing = (0,)
    grad_input = empty(input, input.shape, layout) if wanted[0] else input.new_empty(nothing)
    if not wanted[1]:
        grad_thresholds = input.new_empty(nothing)
    elif thresholds is None:
        grad_thresholds = input.new_empty(())
    elif layout == NCHW:
        grad_thresholds = input.new_empty(thresholds.shape)
    else:
        grad_thresholds = input.new_empty((*thresholds.shape[1:], thresholds.shape[0])).movedim(-1, 0)
    grad_weight = empty(weight, weight.shape, layout) if wanted[2] else input.new_empty(nothing)
    grad_bias = input.new_empty(weight.shape[0]) if wanted[3] else input.new_empty(nothing)
    return grad_input, grad_thresholds, grad_weight, grad_bias


def output_shape(
    input: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding_before: Sequence[int],
    padding_after: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    size, kernel = input.shape[2:], weight.shape[2:]
    extents = _layer.output_size(size, kernel, stride, dilation, padding_before, padding_after)
    if any(extent < 1 for extent in extents):
        raise ValueError(
            f"input has the size {tuple(size)}: with the padding {tuple(padding_before)} before and {tuple(padding_after)} after "
            f"it must be at least as long as the kernel {tuple(kernel)} with the dilation {tuple(dilation)}"
        )
    return [input.shape[0], weight.shape[0], *extents]


def _forward_fake(input: Tensor, weight: Tensor, thresholds: Any, threshold: float, bias: Any, *geometry: Any) -> Tensor:
    return empty(input, output_shape(input, weight, *geometry[:4]), layout_of(input))


def _backward_fake(
    grad_output: Tensor, input: Tensor, weight: Tensor, thresholds: Tensor | None, threshold: float, *rest: Any
) -> tuple[Tensor, ...]:
    return _gradients(input, weight, thresholds, layout_of(input), rest[5])


def _setup_forward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, weight, thresholds, ctx.threshold, _, *ctx.geometry = inputs
    ctx.save_for_backward(input, weight, thresholds)


def _derive_forward(ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
    input, weight, thresholds = ctx.saved_tensors
    needs = ctx.needs_input_grad
    wanted = [needs[0], needs[2], needs[1], needs[4]]
    found = torch.ops.convrelu.backward(grad_output, input, weight, thresholds, ctx.threshold, *ctx.geometry, wanted)
    x, theta, w, b = (gradient if want else None for gradient, want in zip(found, wanted, strict=True))
    return x, w, theta, None, b, None, None, None, None, None


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    grad_output, input, weight, thresholds, ctx.threshold, *ctx.geometry, ctx.wanted = inputs
    ctx.save_for_backward(grad_output, input, weight, thresholds)


def _derive_backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
    given = [cotangent if want else None for cotangent, want in zip(cotangents, ctx.wanted, strict=True)]
    with autocast_off(ctx.saved_tensors[0]):
        grad, x, w, theta = _composition.double_backward(given, *ctx.saved_tensors, ctx.threshold, Geometry(*ctx.geometry))
    return grad, x, w, theta, None, None, None, None, None, None, None


for name, implementation in (("forward", _forward), ("backward", _backward)):
    library.impl(name, implementation, "CompositeExplicitAutograd")
torch.library.register_fake("convrelu::forward", _forward_fake, lib=library)
torch.library.register_fake("convrelu::backward", _backward_fake, lib=library)
torch.library.register_autograd("convrelu::forward", _derive_forward, setup_context=_setup_forward, lib=library)
torch.library.register_autograd("convrelu::backward", _derive_backward, setup_context=_setup_backward, lib=library)
for device in ("cpu", "cuda"):
    for name in ("convrelu::forward", "convrelu::backward"):
        torch.library.register_autocast(name, device, torch.float32, lib=library)
