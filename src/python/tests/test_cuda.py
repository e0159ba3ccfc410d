"""What CUDA tensors take: the dispatcher and PyTorch's operations, against float64 on the CPU.

Most tests run twice: on the CPU as if it were a CUDA device, and on a CUDA device (the fixture `device`, which says when that is
skipped). `test_transforms.py` and some tests elsewhere take the same fixture.
"""

from __future__ import annotations

import copy
import math
import shutil

import pytest
import test_fuse
import test_kernels
import test_transposed
import torch
from conftest import as_cuda, only_cuda
from test_operators import Network
from torch import nn
from torch.func import grad, jvp, vmap

from convrelu.torch import (
    AdaReLU,
    ConvReLU1d,
    ConvReLU2d,
    ConvReLU3d,
    ConvTranspose2d,
    convert,
    functional,
    fuse,
    threshold_statistics,
)
from convrelu.torch.functional import Epilogue
from convrelu.torch.networks import densenet_cifar, resnet18, small_cnn, vgg16

#: Steps between 1 and the next number.
STEPS = {torch.float64: 2.0**-52, torch.float32: 2.0**-23, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}
THRESHOLDS = ["per tap", 0.25, -math.inf]


@as_cuda
@pytest.mark.parametrize("compare", [test_kernels.compare, test_transposed.compare, test_fuse.compare])
def test_random_layers(compare, device: str) -> None:
    for seed in range(150 if device == "cuda" else 40):
        compare(seed, device)


def operands(device: str, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Input, weight, thresholds and bias, and behind them a weight of a transposed layer, for `groups=2`."""
    shapes = (3, 4, 7, 6), (6, 2, 3, 2), (4, 3, 2), (6,), (4, 3, 3, 2)
    return [torch.randn(shape).to(device, dtype).requires_grad_() for shape in shapes]


def derivatives(function, leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    """The output of a function, its gradients, and gradients of these, with directions that do not depend on device and dtype."""
    generator = torch.Generator().manual_seed(7)

    def direction(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator).to(like)

    y = function(*leaves)
    first = torch.autograd.grad((y * y * direction(y)).sum(), leaves, create_graph=True, allow_unused=True)
    first = [gradient for gradient in first if gradient is not None]
    second = torch.autograd.grad(sum((g * direction(g)).sum() for g in first), leaves, allow_unused=True)
    return [y, *first, *(gradient for gradient in second if gradient is not None)]


def check(found: list[torch.Tensor], exact: list[torch.Tensor], step: float) -> None:
    """Whether results differ by at most 16 steps of the largest."""
    assert len(found) == len(exact)
    for ours, theirs in zip(found, exact, strict=True):
        bound = 16 * step * theirs.abs().max().item()
        torch.testing.assert_close(ours.detach().cpu().double(), theirs.detach(), rtol=0, atol=bound)


@as_cuda
@pytest.mark.parametrize("thresholds", THRESHOLDS)
@pytest.mark.parametrize("dtype", STEPS)
def test_every_dtype(dtype: torch.dtype, thresholds: str | float, device: str) -> None:
    """Output, first and second derivatives, of both kinds of layers."""

    def layer(x, w, theta, b, _) -> torch.Tensor:
        per_tap = theta if thresholds == "per tap" else thresholds
        return functional.conv_relu(x, w, per_tap, b, (2, 1), [(1, 0), (0, 2)], groups=2)

    def transposed(x, w, theta, b, v) -> torch.Tensor:
        return functional.conv_transpose(x, v, b, (2, 1), 1, (1, 0), 2)

    leaves = operands(device, dtype)
    exact = [leaf.detach().cpu().double().requires_grad_() for leaf in leaves]
    for function in (layer, transposed) if thresholds == 0.25 else (layer,):
        found = derivatives(function, leaves)
        assert all(tensor.dtype is dtype and tensor.device.type == device for tensor in found)
        check(found, derivatives(function, exact), STEPS[dtype])


@as_cuda
@pytest.mark.parametrize("kind", [ConvReLU1d, ConvReLU2d, ConvReLU3d])
@pytest.mark.parametrize("padding", [0, 1, "same", "valid"])
def test_modules(kind, padding: int | str, device: str) -> None:
    layer = kind(4, 6, 3, 1, padding, 2, 2, threshold_init=("gaussian", 0.5)).to(device)
    assert all(parameter.device.type == device for parameter in layer.parameters())
    x = torch.randn(2, 4, *[7] * kind.rank).to(device)
    y = layer(x)
    y.square().sum().backward()
    exact, x = copy.deepcopy(layer).cpu().double(), x.cpu().double()
    exact.zero_grad()
    z = exact(x)
    z.square().sum().backward()
    gradients = ([p.grad for p in module.parameters()] for module in (layer, exact))
    check([y, layer(x[0].to(y)), *next(gradients)], [z, exact(x[0]), *next(gradients)], STEPS[torch.float32])
    assert kind(4, 6, 3, device=device).weight.device.type == device


@as_cuda
@pytest.mark.parametrize("dtype", STEPS)
def test_a_tie_goes_to_the_threshold(dtype: torch.dtype, device: str) -> None:
    """Of a number too, which counts as rounded to the dtype."""
    for threshold in (0.3, 0.7, -0.1, 1.0):
        x = torch.full((1, 1, 1), threshold, dtype=dtype, device=device, requires_grad=True)
        y = functional.conv_relu(x, torch.ones_like(x), threshold)
        assert y.item() == x.item()
        assert torch.autograd.grad(y, x)[0].item() == 0, threshold
        theta = x.detach()[0].requires_grad_()
        y = functional.conv_relu(x, torch.ones_like(x), theta)
        assert [gradient.item() for gradient in torch.autograd.grad(y, (x, theta))] == [0, 1]


@as_cuda
def test_nan_and_infinity(device: str) -> None:
    """They go where they go on the CPU: a NaN of the input to the output, but its gradient nowhere."""
    x, w, theta, b, _ = operands("cpu", torch.float64)
    with torch.no_grad():
        x[0, 0, 2, 3], x[1, 2, 1, 1], x[2, 3, 4, 4] = math.nan, math.inf, -math.inf
        theta[1, 0, 0], theta[3, 1, 1] = math.inf, -math.inf
    for per_tap in (theta, 0.25, -math.inf):
        rows = []
        for to in ((device, torch.float32), ("cpu", torch.float64)):
            leaves = [t.detach().to(*to).requires_grad_() if isinstance(t, torch.Tensor) else t for t in (x, w, per_tap, b)]
            y = functional.conv_relu(*leaves, groups=2)
            tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
            rows.append([y.detach(), *torch.autograd.grad(y.sum(), tensors)])
        assert any(bool(tensor.isnan().any()) for tensor in rows[1]) and not rows[1][1].isnan().any()
        for ours, exact in zip(*rows, strict=True):
            torch.testing.assert_close(ours.cpu().double(), exact, rtol=1e-4, atol=1e-4, equal_nan=True)


@as_cuda
def test_channels_last(device: str) -> None:
    for kind, memory_format in ((ConvReLU2d, torch.channels_last), (ConvReLU3d, torch.channels_last_3d)):
        layer = kind(4, 6, 3, padding=1, threshold_init=("gaussian", 0.5)).to(device)
        x = torch.randn(2, 4, *[5] * kind.rank, device=device)
        last = x.contiguous(memory_format=memory_format).requires_grad_()
        y = layer(last)
        assert y.is_contiguous(memory_format=memory_format)
        torch.testing.assert_close(y, layer(x), rtol=1e-4, atol=1e-5)
        y.square().sum().backward()
        assert last.grad.is_contiguous(memory_format=memory_format)
    layer = ConvTranspose2d(4, 6, 3).to(device)
    x = torch.randn(2, 4, 5, 5, device=device).contiguous(memory_format=torch.channels_last)
    assert layer(x).is_contiguous(memory_format=torch.channels_last)


@as_cuda
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_runs_in_float32(dtype: torch.dtype, device: str) -> None:
    """All orders of derivatives too, inside the context, and under transforms; with inputs of both dtypes."""
    x, w, theta, b, v = operands(device)
    scale = torch.randn(6, device=device)

    def layer(x, w, theta, b) -> torch.Tensor:
        return functional.conv_relu(x, w, theta, b, padding=1, groups=2)

    def transposed(x, v, b) -> torch.Tensor:
        return functional.conv_transpose(x, v, b, stride=2, groups=2)

    def ending(x, w, theta, b) -> torch.Tensor:
        with torch.no_grad():
            return functional.conv_relu(x, w, theta, b, padding=1, groups=2, epilogue=Epilogue(scale, low=0.0))

    def per_sample(x, w, theta, b) -> torch.Tensor:
        def loss(w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return layer(x.unsqueeze(0), w, theta, b).square().sum()

        return vmap(grad(loss), (None, 0))(w, x)

    def tangent(x, w, theta, b) -> torch.Tensor:
        return jvp(lambda w: layer(x, w, theta, b), (w.detach(),), (w.detach() + 1,))[1]

    def transposed_tangent(x, v, b) -> torch.Tensor:
        return jvp(lambda v: transposed(x, v, b), (v.detach(),), (v.detach() + 1,))[1]

    cases = [(layer, (x, w, theta, b)), (transposed, (x, v, b))]
    for function, leaves in cases:
        with torch.autocast(device, dtype):
            found = derivatives(function, leaves)
            low = function(x.detach().to(dtype), *leaves[1:])
        assert found[0].dtype is torch.float32 and low.dtype is torch.float32
        check(found, [tensor.cpu().double() for tensor in derivatives(function, leaves)], STEPS[torch.float32])
        torch.testing.assert_close(low, function(x.detach().to(dtype).float(), *leaves[1:]), rtol=1e-4, atol=1e-4)
    cases = [(function, (x, w, theta, b)) for function in (ending, per_sample, tangent)]
    for function, leaves in [*cases, (transposed_tangent, (x, v, b))]:
        rounded = x.detach().to(dtype)
        with torch.autocast(device, dtype):
            found = function(rounded, *leaves[1:])
        assert found.dtype is torch.float32
        torch.testing.assert_close(found, function(rounded.float(), *leaves[1:]), rtol=1e-4, atol=1e-4)


# The large ones take minutes on the CPU.
@pytest.mark.parametrize(
    ("build", "device"),
    [(small_cnn, "composition"), *((build, "cuda") for build in (small_cnn, densenet_cifar, resnet18, vgg16))],
    indirect=["device"],
)
@pytest.mark.parametrize("last", [False, True])
def test_networks(build, last: bool, device: str) -> None:
    """A step of training, the network after `fuse`, and statistics of its thresholds."""
    model = test_fuse.settle(convert(build(), "all").model)
    x = torch.randn(4, *((1, 8, 8) if build is small_cnn else (3, 32, 32)))
    labels = torch.randint(10, (4,))
    there = copy.deepcopy(model).to(device)
    exact, images = model.double(), x.double()
    x = x.to(device)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = exact(images)
        bound = dict(rtol=1e-3, atol=1e-4 * expected.abs().max().item())
        fused = fuse(there).model
        assert {tensor.device.type for tensor in (*fused.parameters(), *fused.buffers())} == {device}
        for network in (there, fused):
            torch.testing.assert_close(network(x).cpu().double(), expected, **bound)
    rows = [threshold_statistics(network, batch)[-1] for network, batch in ((there, x), (exact, images))]
    assert rows[0].mean == pytest.approx(rows[1].mean) and rows[0].dead == pytest.approx(rows[1].dead, abs=1e-3)
    for network, batch in ((there, x), (exact, images)):
        nn.functional.cross_entropy(network(batch), labels.to(batch.device)).backward()
    for (name, ours), theirs in zip(there.named_parameters(), exact.parameters(), strict=True):
        error = (ours.grad.cpu().double() - theirs.grad).norm() / theirs.grad.norm().clamp_min(1e-12)
        # Rounding puts some values on the other side of their threshold, where the gradient is another.
        assert error < 1e-2, f"{name}: {error}"


@as_cuda
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile(backend: str, device: str) -> None:
    """A layer, and what surrounds it, with derivatives; a fused layer without."""
    if backend == "inductor" and all(shutil.which(name) is None for name in ("g++", "clang++")):
        pytest.skip("inductor needs a C++ compiler")
    torch.compiler.reset()
    network = Network().to(device)
    x = torch.randn(2, 3, 9, 9, device=device)
    rows = []
    for module in (network, torch.compile(network, fullgraph=True, backend=backend)):
        network.zero_grad()
        y = module(x)
        y.square().sum().backward()
        rows.append([y.detach(), *(p.grad.clone() for p in network.parameters())])
    for a, b in zip(*rows, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    fused = fuse(network.eval()).model
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(fused, fullgraph=True, backend=backend)(x), network(x), rtol=1e-4, atol=1e-4)


@only_cuda
def test_opcheck(device: str) -> None:
    """On the CPU `test_operators.py` and its neighbours do that."""
    x, w, theta, b, v = operands(device)
    geometry = [[2, 1], [1, 0], [0, 2], [1, 1], 2]
    y = torch.ops.convrelu.forward(x, w, theta, 0.0, b, *geometry)
    along = torch.randn_like(y).requires_grad_()
    scale, residual = torch.randn(6, device=device), torch.randn_like(y)
    parts = [t.detach() for t in (x, w, theta, b)]
    z = torch.ops.convrelu.conv_transpose(x, v, b, [2, 1], [1, 1], [1, 0], [1, 1], 2)
    wanted, ops = [True] * 4, torch.ops.convrelu
    for operator, arguments in (
        (ops.forward, (x, w, theta, 0.0, b, *geometry)),
        (ops.backward, (along, x, w, theta, 0.0, *geometry, wanted)),
        (ops.forward_epilogue, (*parts[:3], 0.0, parts[3], scale, None, residual, 0.0, math.inf, *geometry)),
        (ops.conv_transpose, (x, v, b, [2, 1], [1, 1], [1, 0], [1, 1], 2)),
        (ops.conv_transpose_backward, (torch.randn_like(z), x, v, [2, 1], [1, 1], [1, 0], [1, 1], 2, [True] * 3)),
    ):
        torch.library.opcheck(operator.default, arguments)


@only_cuda
def test_nothing_waits_for_the_device(device: str) -> None:
    """A CUDA graph records a step, which it could not if a call asked the device for a value."""
    layer, one = ConvReLU2d(4, 6, 3, padding=1, threshold_init=("gaussian", 0.5)).to(device), AdaReLU(6, device=device)
    network = nn.Sequential(layer, one, ConvTranspose2d(6, 2, 3, stride=2, device=device))
    x = torch.randn(2, 4, 9, 9, device=device, requires_grad=True)
    replay = torch.cuda.make_graphed_callables(copy.deepcopy(network), (torch.randn_like(x).requires_grad_(),))
    results = []
    for module in (network, replay):
        x.grad = None
        y = module(x)
        y.square().sum().backward()
        results.append([y.detach().clone(), x.grad.clone()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@as_cuda
def test_operands_on_two_devices(device: str) -> None:
    """The error names the argument, where it is, and where it must be."""
    elsewhere = "cpu" if device == "cuda" else "meta"
    x, w, theta, b, v = (tensor.detach() for tensor in operands(device))
    call, ones = functional.conv_relu, torch.ones(6, device=device)
    fused = fuse(nn.Sequential(ConvReLU2d(4, 6, 3, device=device), nn.BatchNorm2d(6, device=device)).eval()).model.get_submodule(
        "0"
    )
    residual = fused(x)

    def away(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(elsewhere)

    cases = {
        "weight": [lambda: call(x, away(w), theta, b, groups=2), lambda: functional.conv_transpose(x, away(v), b, groups=2)],
        "thresholds": [
            lambda: call(x, w, away(theta), b, groups=2),
            lambda: call(x, w, away(theta[0, 0, 0]), b, groups=2),
            lambda: functional.ada_relu(x, away(theta[:, 0, 0])),
        ],
        "bias": [lambda: call(x, w, theta, away(b), groups=2), lambda: functional.conv_transpose(x, v, away(b), groups=2)],
        "scale": [lambda: call(x, w, theta, b, groups=2, epilogue=Epilogue(scale=away(ones)))],
        "shift": [lambda: call(x, w, theta, b, groups=2, epilogue=Epilogue(shift=away(ones)))],
        "residual": [
            lambda: call(x, w, theta, b, groups=2, epilogue=Epilogue(residual=away(call(x, w, theta, b, groups=2)))),
            lambda: fused(x, away(residual)),
        ],
    }
    for name, calls in cases.items():
        for mistake in calls:
            with pytest.raises(ValueError) as caught:
                mistake()
            assert str(caught.value).startswith(f"{name} is on {elsewhere}: it must be where input is, on {device}"), name
    with torch.no_grad(), pytest.raises(TypeError, match="out is a "):
        call(x, w, theta, b, groups=2, out=away(call(x, w, theta, b, groups=2)))
    if elsewhere == "cpu":
        # The operator itself, without the function that checks: the kernels do not read addresses of another device.
        for first, second in ((x, away(w)), (away(x), w)):
            with pytest.raises(RuntimeError, match="device"):
                torch.ops.convrelu.forward(first, second, None, 0.0, None, [1, 1], [0, 0], [0, 0], [1, 1], 2)


@as_cuda
def test_mistakes_are_seen_before_pytorch_sees_them(device: str) -> None:
    x, w, theta, b, v = operands(device)
    for mistake, words in (
        (lambda: functional.conv_relu(x, w, theta, b, dilation=9, groups=2), ["input", "(7, 6)", "(3, 2)"]),
        (lambda: functional.conv_transpose(x, v, b, padding=9, groups=2), ["padding", "(9, 9)", "(7, 6)"]),
    ):
        with pytest.raises(ValueError) as caught:
            mistake()
        assert all(word in str(caught.value) for word in words), caught.value
