"""The layer as a function with derivatives, on the shortest way there is: past the dispatcher where nothing listens there.

An operator in Python costs 25 to 60 µs, a small layer less than 10. Under transforms of `torch.func` the layer is an
`autograd.Function`, with rules for `vmap`. Where forward-mode derivatives may be asked for, it is the composition.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import _composition, _operators
from ._composition import Geometry
from ._operators import _backward, _derive_backward, _forward, _setup_backward, is_autocast_enabled, library


def _into_channels(tensor: Tensor) -> Tensor:
    """A stack of tensors `(B, N, C, …)`, one beside the other: `(N, B · C, …)`."""
    return tensor.transpose(0, 1).flatten(1, 2)


def _out_of_channels(tensor: Tensor, count: int) -> Tensor:
    """The inverse of `_into_channels`."""
    return tensor.unflatten(1, (count, -1)).transpose(0, 1)


def _stack(tensor: Tensor | None, dim: int | None, count: int) -> Tensor | None:
    """An operand with the mapped axis in front; one that is not mapped is repeated."""
    if tensor is None:
        return None
    return tensor.expand(count, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _vmap_forward(
    call: Any,
    info: Any,
    dims: tuple[int | None, ...],
    input: Tensor,
    weight: Tensor,
    thresholds: Tensor | None,
    threshold: float,
    bias: Tensor | None,
    geometry: Geometry,
) -> tuple[Tensor, int]:
    """`call` of mapped operands (`dims`: of input, weight, thresholds, bias), and the axis that is mapped in the output.

    If only the input is mapped, the axis is folded into the batch. Else each of its elements becomes groups of one layer.
    """
    count = info.batch_size
    if dims[1:] == (None, None, None):
        x = _stack(input, dims[0], count)
        y = call(x.flatten(0, 1), weight, thresholds, threshold, bias, geometry)
        return y.unflatten(0, x.shape[:2]), 0
    x, w, theta, b = map(_stack, (input, weight, thresholds, bias), dims, (count,) * 4)
    flat = (w.flatten(0, 1), None if theta is None else theta.flatten(0, 1), threshold, None if b is None else b.flatten())
    y = call(_into_channels(x), *flat, geometry._replace(groups=geometry.groups * count))
    return _out_of_channels(y, count), 0


def _vmap_backward(
    call: Any,
    info: Any,
    dims: tuple[int | None, ...],
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    thresholds: Tensor | None,
    threshold: float,
    geometry: Geometry,
    wanted: list[bool],
) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
    """As `_vmap_forward`, of the gradients (`dims`: of the output's gradient, input, weight, thresholds)."""
    count = info.batch_size
    g, x, w, theta = map(_stack, (grad_output, input, weight, thresholds), dims, (count,) * 4)
    if dims[2:] == (None, None) and not any(wanted[1:]):
        found = call(g.flatten(0, 1), x.flatten(0, 1), weight, thresholds, threshold, geometry, wanted)
        return (found[0].unflatten(0, x.shape[:2]), *found[1:]), (0, None, None, None)
    uniform = theta is None
    if uniform and wanted[1]:
        # The gradient of one threshold for all is a sum over all; here there is one sum per element.
        theta = x.new_full((count, x.shape[2], *w.shape[3:]), threshold)
    flat = (w.flatten(0, 1), None if theta is None else theta.flatten(0, 1), threshold)
    groups = geometry._replace(groups=geometry.groups * count)
    found = call(_into_channels(g), _into_channels(x), *flat, groups, wanted)
    grad_input = _out_of_channels(found[0], count) if wanted[0] else found[0]
    others = zip(found[1:], wanted[1:], strict=True)
    rest = [gradient.unflatten(0, (count, -1)) if want else gradient for gradient, want in others]
    if uniform and wanted[1]:
        rest[0] = rest[0].flatten(1).sum(1)
    return (grad_input, *rest), tuple(0 if want else None for want in wanted)


class _Forward(torch.autograd.Function):
    """The operator as the transforms of `torch.func` want it."""

    @staticmethod
    def forward(
        input: Tensor, weight: Tensor, thresholds: Tensor | None, threshold: float, bias: Tensor | None, geometry: Geometry
    ) -> Tensor:
        call = _forward if is_eager(input, weight, thresholds, bias) else torch.ops.convrelu.forward
        return call(input, weight, thresholds, threshold, bias, *geometry)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        input, weight, thresholds, ctx.threshold, _, ctx.geometry = inputs
        ctx.save_for_backward(input, weight, thresholds)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
        needs = ctx.needs_input_grad
        wanted = [needs[0], needs[2], needs[1], needs[4]]
        if not torch.compiler.is_compiling() and torch._C._functorch.is_legacy_batchedtensor(grad_output):
            # Of `torch.autograd.grad(…, is_grads_batched=True)`, which knows operators only.
            derive: Any = torch.ops.convrelu.backward
        elif torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
            # With a graph, the gradients are to have derivatives of their own.
            derive = _Backward.apply
        else:
            derive = _Backward.forward
        found = derive(grad_output, *ctx.saved_tensors, ctx.threshold, *ctx.geometry, wanted)
        x, theta, w, b = (gradient if want else None for gradient, want in zip(found, wanted, strict=True))
        return x, w, theta, None, b, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        return _vmap_forward(conv_relu, info, (*in_dims[:3], in_dims[4]), *inputs)


class _Eager(torch.autograd.Function):
    """The operator without the dispatcher, which takes longer than a small layer. (So does a `setup_context` of its own.)"""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        thresholds: Tensor | None,
        threshold: float,
        bias: Tensor | None,
        geometry: Geometry,
    ) -> Tensor:
        _Forward.setup_context(ctx, (input, weight, thresholds, threshold, bias, geometry), input)
        return _forward(input, weight, thresholds, threshold, bias, *geometry)

    backward = _Forward.backward


class _Backward(torch.autograd.Function):
    """The operator of the gradients, where they are to have derivatives."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        call = _backward if is_eager(*inputs[:4]) else torch.ops.convrelu.backward
        return call(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _setup_backward(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        return _derive_backward(ctx, *cotangents)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
        def call(*operands: Any) -> tuple[Tensor, ...]:
            *tensors, geometry, wanted = operands
            return _Backward.apply(*tensors, *geometry, wanted)

        return _vmap_backward(call, info, in_dims[:4], *inputs[:5], Geometry(*inputs[5:10]), inputs[10])


_PLAIN = {Tensor, torch.nn.Parameter}


def is_eager(*tensors: Tensor | None) -> bool:
    """Whether the dispatcher has nothing to do: all on the CPU; no subclass, no mode, no compiler or tracer, no autocast."""
    return (
        not torch.compiler.is_compiling()
        and all(tensor is None or (type(tensor) in _PLAIN and tensor.is_cpu) for tensor in tensors)
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._len_torch_function_stack() == 0
        and torch._C._get_tracing_state() is None
        and not torch.is_autocast_enabled("cpu")
    )


def is_forward_mode() -> bool:
    """Whether tensors may carry tangents: inside `torch.func.jvp`, or `torch.autograd.forward_ad.dual_level`."""
    return forward_ad._current_level >= 0


def without_autocast(function: Any, *operands: Any) -> Tensor:
    """`function(*operands)` where autocast is on, as the dispatcher calls our operators: in float32, and with autocast off."""
    device = operands[0].device.type
    is_cast = [isinstance(operand, Tensor) and operand.dtype is not torch.float64 for operand in operands]
    with torch.autocast(device, enabled=False):
        return function(*(operand.float() if cast else operand for operand, cast in zip(operands, is_cast, strict=True)))


def _transformed(
    input: Tensor, weight: Tensor, thresholds: Tensor | None, threshold: float, bias: Tensor | None, geometry: Geometry
) -> Tensor:
    """The layer where a transform of `torch.func` or the forward mode is active.

    In forward mode it is the composition, of whose operations PyTorch knows the derivatives of every mode.
    """
    if is_autocast_enabled(input.device.type):
        return without_autocast(_transformed, input, weight, thresholds, threshold, bias, geometry)
    if not is_forward_mode():
        return _Forward.apply(input, weight, thresholds, threshold, bias, geometry)
    _operators.output_shape(input, weight, *geometry[:4])
    if not torch._C._are_functorch_transforms_active():
        _operators._check_numbers(thresholds)
    return _composition.forward(input, weight, thresholds, threshold, bias, geometry)


def conv_relu(
    input: Tensor, weight: Tensor, thresholds: Tensor | None, threshold: float, bias: Tensor | None, geometry: Geometry
) -> Tensor:
    """`torch.ops.convrelu.forward`, on the shortest way there is."""
    if is_forward_mode() or torch._C._are_functorch_transforms_active():
        return _transformed(input, weight, thresholds, threshold, bias, geometry)
    if not is_eager(input, weight, thresholds, bias):
        return torch.ops.convrelu.forward(input, weight, thresholds, threshold, bias, *geometry)
    return _Eager.apply(input, weight, thresholds, threshold, bias, geometry)


def _vmap_of_forward(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
    def call(*operands: Any) -> Tensor:
        *tensors, geometry = operands
        return torch.ops.convrelu.forward(*tensors, *geometry)

    return _vmap_forward(call, info, (*in_dims[:3], in_dims[4]), *inputs[:5], Geometry(*inputs[5:]))


def _vmap_of_backward(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
    def call(*operands: Any) -> tuple[Tensor, ...]:
        *tensors, geometry, wanted = operands
        return torch.ops.convrelu.backward(*tensors, *geometry, wanted)

    return _vmap_backward(call, info, in_dims[:4], *inputs[:5], Geometry(*inputs[5:10]), inputs[10])


torch.library.register_vmap("convrelu::forward", _vmap_of_forward, lib=library)
torch.library.register_vmap("convrelu::backward", _vmap_of_backward, lib=library)
