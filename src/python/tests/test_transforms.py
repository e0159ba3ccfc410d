"""`torch.func`: vmap, per-sample gradients, Jacobians, forward mode; against loops and PyTorch's own layers."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from convrelu.torch import ConvReLU2d, ConvTranspose2d, functional


@pytest.fixture(autouse=True)
def _everywhere(device: str) -> Iterator[None]:
    """Every test makes its tensors where `device` says."""
    with contextlib.nullcontext() if device == "cpu" else torch.device(device):
        yield


OPTIONS = dict(stride=(2, 1), padding=[(1, 0), (0, 2)], dilation=1, groups=2)


def operands(count: int, batch: int = 3, last: bool = False, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Input, weight, thresholds and bias, each `count` times."""
    shapes = ((batch, 4, 6, 5), (6, 2, 3, 2), (4, 3, 2), (6,))
    tensors = [torch.randn(count, *shape, dtype=dtype) for shape in shapes]
    if last:
        tensors[0] = tensors[0].movedim(2, -1).contiguous().movedim(-1, 2)
    return tensors


def layer(x: torch.Tensor, w: torch.Tensor, theta: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return functional.conv_relu(x, w, theta, b, **OPTIONS)


def squares(*leaves: torch.Tensor) -> torch.Tensor:
    return layer(*leaves).square().sum()


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("mapped", list(itertools.product([False, True], repeat=4))[1:])
def test_vmap_of_every_subset(mapped: tuple[bool, ...], last: bool) -> None:
    """Outputs and gradients, with every subset of operands mapped, along axes that are not always the first."""
    count = 3
    stacks = operands(count, last=last)
    dims = [(axis % 2) if want else None for axis, want in enumerate(mapped)]
    given = [stack.movedim(0, dim) if dim is not None else stack[0] for stack, dim in zip(stacks, dims, strict=True)]
    rows = [[s[i] if want else s[0] for s, want in zip(stacks, mapped, strict=True)] for i in range(count)]
    close(vmap(layer, tuple(dims))(*given), torch.stack([layer(*row) for row in rows]))
    found = vmap(grad(squares, (0, 1, 2, 3)), tuple(dims))(*given)
    expected = [grad(squares, (0, 1, 2, 3))(*row) for row in rows]
    for gradient, each in zip(found, zip(*expected, strict=True), strict=True):
        close(gradient, torch.stack(each))


@pytest.mark.parametrize("wanted", list(itertools.product([False, True], repeat=4))[1:])
def test_vmap_of_every_subset_of_gradients(wanted: tuple[bool, ...]) -> None:
    """Of the backward pass, where only some gradients are wanted; mapped over the gradient of the output alone, and the input."""
    leaves = [stack[0].requires_grad_(want) for stack, want in zip(operands(1), wanted, strict=True)]
    y = layer(*leaves)
    directions = torch.randn(5, *y.shape)
    tensors = [leaf for leaf in leaves if leaf.requires_grad]
    found = torch.autograd.grad(y, tensors, directions, is_grads_batched=True, retain_graph=True)
    for i, direction in enumerate(directions):
        for gradient, expected in zip(found, torch.autograd.grad(y, tensors, direction, retain_graph=True), strict=True):
            close(gradient[i], expected)


@pytest.mark.parametrize("threshold", [-math.inf, 0.0, 0.3])
def test_vmap_with_one_threshold(threshold: float) -> None:
    x, w, _, b = operands(4)

    def loss(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return functional.conv_relu(x, w, threshold, b, **OPTIONS).square().sum()

    found = vmap(grad(loss, (0, 1, 2)))(x, w, b)
    for i in range(4):
        for gradient, expected in zip(found, grad(loss, (0, 1, 2))(x[i], w[i], b[i]), strict=True):
            close(gradient[i], expected)


def test_gradients_per_sample() -> None:
    """What differential privacy asks for: the gradients of each image, which add up to that of the batch."""
    network = torch.nn.Sequential(
        ConvReLU2d(1, 4, 3, threshold_init=("gaussian", 0.5)), ConvReLU2d(4, 3, 3, groups=1), torch.nn.Flatten()
    )
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}
    images, labels = torch.randn(6, 1, 8, 8), torch.randint(48, (6,))

    def loss(parameters: dict, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        y = functional_call(network, parameters, (image.unsqueeze(0),))
        return torch.nn.functional.cross_entropy(y, label.unsqueeze(0))

    found = vmap(grad(loss), (None, 0, 0))(parameters, images, labels)
    torch.nn.functional.cross_entropy(network(images), labels, reduction="sum").backward()
    for name, parameter in network.named_parameters():
        assert found[name].shape == (6, *parameter.shape)
        close(found[name].sum(0), parameter.grad)
        close(found[name][2], grad(loss)(parameters, images[2], labels[2])[name])


def test_ensembles_and_nested_vmap() -> None:
    """Many weights on one batch, and a map within a map."""
    x, w, theta, b = operands(4)
    found = vmap(vmap(layer, (0, None, None, None)), (None, 0, 0, 0))(x, w, theta, b)
    assert found.shape[:2] == (4, 4)
    close(found[2, 3], layer(x[3], w[2], theta[2], b[2]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_jacobians(dtype: torch.dtype) -> None:
    tolerance = 1e-4 if dtype is torch.float32 else 1e-10
    x, w, theta, b = (stack[0] for stack in operands(1, 1, dtype=dtype))
    for number in range(4):
        reverse, forward = (function(layer, number)(x, w, theta, b) for function in (jacrev, jacfwd))
        torch.testing.assert_close(reverse, forward, rtol=tolerance, atol=tolerance)
    small = w[:2, :, :1, :1], theta[:, :1, :1]

    def of_theta(theta: torch.Tensor) -> torch.Tensor:
        y = functional.conv_relu(x, small[0], theta, None, groups=2)
        return (y**3).sum()

    second = hessian(of_theta)(small[1])
    rows = jacrev(jacrev(of_theta))(small[1])
    torch.testing.assert_close(second, rows, rtol=10 * tolerance, atol=10 * tolerance)
    assert second.abs().max() > 0


@pytest.mark.parametrize("thresholds", ["per tap", 0.25, -math.inf])
def test_forward_mode(thresholds: str | float) -> None:
    """`torch.func.jvp` and dual tensors against the reverse mode: `⟨u, J v⟩ = ⟨Jᵀ u, v⟩`."""
    x, w, theta, b = (stack[0].double() for stack in operands(1))

    def function(x: torch.Tensor, w: torch.Tensor, theta: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return functional.conv_relu(x, w, theta if thresholds == "per tap" else thresholds, b, **OPTIONS)

    primals = (x, w, theta, b)
    tangents = tuple(torch.randn_like(primal) for primal in primals)
    y, along = jvp(function, primals, tangents)
    torch.testing.assert_close(y, function(*primals))
    u = torch.randn_like(y)
    back = vjp(function, *primals)[1](u)
    expected = sum((gradient * tangent).sum() for gradient, tangent in zip(back, tangents, strict=True))
    torch.testing.assert_close((u * along).sum(), expected)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(primal, tangent) for primal, tangent in zip(primals, tangents, strict=True)]
        torch.testing.assert_close(forward_ad.unpack_dual(function(*duals)).tangent, along)


def test_forward_over_reverse() -> None:
    """A product of the Hessian and a vector, by forward mode of the gradient and by reverse mode of it."""
    x, w, theta, b = (stack[0].double() for stack in operands(1))
    direction = torch.randn_like(theta)

    def of_theta(theta: torch.Tensor) -> torch.Tensor:
        return layer(x, w, theta, b).pow(3).sum()

    _, forward = jvp(grad(of_theta), (theta,), (direction,))
    backward = grad(lambda theta: (grad(of_theta)(theta) * direction).sum())(theta)
    torch.testing.assert_close(forward, backward)
    assert forward.abs().max() > 0


def test_gradcheck_of_forward_mode() -> None:
    leaves = [stack[0].double().requires_grad_() for stack in operands(1, 1)]
    assert torch.autograd.gradcheck(layer, leaves, check_forward_ad=True, check_batched_grad=True, fast_mode=True)


def test_mistakes_in_forward_mode(device: str) -> None:
    x, w, theta, b = (stack[0] for stack in operands(1))
    theta[0, 0, 0] = math.nan
    if device == "cpu":
        with forward_ad.dual_level(), pytest.raises(ValueError, match="thresholds holds NaN"):
            layer(forward_ad.make_dual(x, x), w, theta, b)
    with pytest.raises(ValueError, match="input has the size"):
        jvp(lambda x: functional.conv_relu(x, w, 0, b, dilation=4, groups=2), (x,), (x,))


def test_transposed() -> None:
    module = ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, groups=2)
    parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}
    x = torch.randn(3, 2, 4, 5, 5)

    def loss(parameters: dict, x: torch.Tensor) -> torch.Tensor:
        return functional_call(module, parameters, (x,)).square().sum()

    found = vmap(grad(loss), (None, 0))(parameters, x)
    for name in parameters:
        close(found[name][1], grad(loss)(parameters, x[1])[name])
    tangent = torch.randn_like(x[0])
    close(jvp(lambda x: module(x), (x[0],), (tangent,))[1], module(tangent) - module(torch.zeros_like(tangent)))
    with forward_ad.dual_level():
        along = forward_ad.unpack_dual(module(forward_ad.make_dual(x[0], tangent))).tangent
    close(along, module(tangent) - module(torch.zeros_like(tangent)))


@pytest.mark.parametrize("kind", ["layer", "transposed"])
def test_maps_over_a_graph_that_exists(kind: str) -> None:
    """Both ways to map the backward pass of what was computed without a map."""
    module = ConvReLU2d(4, 6, 3) if kind == "layer" else ConvTranspose2d(4, 6, 3, stride=2)
    x = torch.randn(2, 4, 6, 6, requires_grad=True)
    y = module(x)
    leaves, directions = [x, *module.parameters()], torch.randn(3, *y.shape)

    def back(direction: torch.Tensor, batched: bool = False) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(y, leaves, direction, retain_graph=True, is_grads_batched=batched)

    rows = [back(direction) for direction in directions]
    for found in (vmap(back)(directions), back(directions, True)):
        for gradient, expected in zip(found, zip(*rows, strict=True), strict=True):
            close(gradient, torch.stack(expected))


def test_compiled_transforms() -> None:
    stacks = operands(3)
    row = [stack[0] for stack in stacks]
    for function, arguments in ((vmap(layer), stacks), (grad(squares, (0, 1, 2, 3)), row)):
        torch.compiler.reset()
        found = torch.compile(function, fullgraph=True, backend="aot_eager")(*arguments)
        for ours, expected in zip(found, function(*arguments), strict=True):
            close(ours, expected)


def test_operators_themselves() -> None:
    """As modes and compilers see them."""
    x, w, theta, b = operands(3)
    arguments = [[2, 1], [1, 0], [0, 2], [1, 1], 2]

    def call(x: torch.Tensor, w: torch.Tensor, theta: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.ops.convrelu.forward(x, w, theta, 0.0, b, *arguments)

    y = vmap(call)(x, w, theta, b)
    close(y, torch.stack([layer(*row) for row in zip(x, w, theta, b, strict=True)]))

    def back(g: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.ops.convrelu.backward(g, x, w, None, 0.25, *arguments, [True, True, True, True])

    g = torch.randn_like(y)
    found = vmap(back)(g, x, w)
    for i in range(3):
        for gradient, expected in zip(found, back(g[i], x[i], w[i]), strict=True):
            close(gradient[i], expected)
