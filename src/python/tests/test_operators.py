"""What PyTorch asks of an operator: opcheck, gradcheck, compile, export, transforms, autocast, modes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from conftest import random_layer

from convrelu.torch import AdaReLU, ConvReLU1d, ConvReLU2d, ConvReLU3d, functional

ARGUMENTS = [[1, 1], [1, 0], [1, 1], [1, 1], 1]


def operands(dtype: torch.dtype = torch.float32, last: bool = False) -> list[torch.Tensor]:
    tensors = torch.randn(2, 4, 5, 6), torch.randn(3, 4, 3, 2), torch.randn(4, 3, 2), torch.randn(3)
    x, w, theta, b = (tensor.to(dtype) for tensor in tensors)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    return [tensor.requires_grad_() for tensor in (x, w, theta, b)]


@pytest.mark.parametrize(
    ("dtype", "last", "per_tap"),
    [
        (torch.float32, False, True),
        (torch.float32, True, True),
        (torch.float32, False, False),
        (torch.float64, False, True),
        (torch.float64, True, False),
    ],
)
def test_opcheck(dtype: torch.dtype, last: bool, per_tap: bool) -> None:
    x, w, theta, b = operands(dtype, last)
    thresholds = (theta, 0.0) if per_tap else (None, 0.25)
    for bias in (b, None):
        torch.library.opcheck(torch.ops.convrelu.forward.default, (x, w, *thresholds, bias, *ARGUMENTS))
    y = torch.ops.convrelu.forward(x, w, *thresholds, b, *ARGUMENTS)
    grad = torch.randn_like(y).requires_grad_()
    for wanted in ([True, per_tap, True, True], [False, False, True, False]):
        torch.library.opcheck(torch.ops.convrelu.backward.default, (grad, x, w, *thresholds, *ARGUMENTS, wanted))


@pytest.mark.parametrize("seed", range(9))
def test_gradcheck(seed: int) -> None:
    """First and second derivatives of the composition in float64, away from kinks."""
    rank = 1 + seed % 3
    groups = 2 if seed % 2 else 1
    x = torch.randn(2, 2, *[4] * rank, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 2 // groups, *[2] * rank, dtype=torch.float64, requires_grad=True)
    theta = torch.randn(2, *[2] * rank, dtype=torch.float64, requires_grad=True)
    b = torch.randn(2, dtype=torch.float64, requires_grad=True)
    options = dict(stride=1 + seed % 2, padding=[(1, 0)] * rank, dilation=1 + seed // 3 % 2, groups=groups)

    def layer(*leaves: torch.Tensor) -> torch.Tensor:
        return functional.conv_relu(*leaves, **options)

    assert torch.autograd.gradcheck(layer, (x, w, theta, b), fast_mode=rank == 3)
    assert torch.autograd.gradgradcheck(layer, (x, w, theta, b), fast_mode=True)
    for threshold in (-math.inf, 0.1):

        def plain(x: torch.Tensor, w: torch.Tensor, threshold: float = threshold) -> torch.Tensor:
            return functional.conv_relu(x, w, threshold, None, **options)

        assert torch.autograd.gradcheck(plain, (x, w), fast_mode=rank == 3)
        assert torch.autograd.gradgradcheck(plain, (x, w), fast_mode=True)


@pytest.mark.parametrize("seed", [0, 1, 2, 4, 5])
def test_double_backward_is_the_compositions(seed: int, device: str) -> None:
    layer = random_layer(seed)
    rows = []
    for to in ((torch.float32, device), (torch.float64, "cpu")):
        torch.manual_seed(seed)
        leaves = layer.operands(*to)
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        y = functional.conv_relu(*leaves, **layer.options)
        weights = torch.randn(y.shape).to(y)
        first = torch.autograd.grad((y * y * weights).sum(), tensors, create_graph=True)
        penalty = sum((gradient * gradient).sum() for gradient in first)
        rows.append(torch.autograd.grad(penalty, tensors, allow_unused=True))
    for ours, exact in zip(*rows, strict=True):
        assert (ours is None) == (exact is None)
        if ours is not None:
            torch.testing.assert_close(ours.cpu().double(), exact, rtol=2e-3, atol=2e-5 * exact.abs().max().item())


def test_third_derivative_exists() -> None:
    leaves = operands(torch.float64)
    y = functional.conv_relu(*leaves)
    for _ in range(3):
        gradients = torch.autograd.grad((y**2).sum(), leaves, create_graph=True)
        y = torch.cat([gradient.flatten() for gradient in gradients])
    assert bool(torch.isfinite(y).all()) and bool((y != 0).any())


def test_every_subset_of_gradients() -> None:
    reference = operands()
    y = functional.conv_relu(*reference, padding=1)
    grad = torch.randn_like(y)
    full = torch.autograd.grad(y, reference, grad)
    for subset in itertools.product([False, True], repeat=4):
        leaves = [leaf.detach().requires_grad_(want) for leaf, want in zip(reference, subset, strict=True)]
        y = functional.conv_relu(*leaves, padding=1)
        assert y.requires_grad == any(subset)
        if any(subset):
            y.backward(grad)
        for leaf, want, expected in zip(leaves, subset, full, strict=True):
            assert torch.equal(leaf.grad, expected) if want else leaf.grad is None


def test_no_grad_and_inference_mode() -> None:
    leaves = operands()
    expected = functional.conv_relu(*leaves).detach()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            y = functional.conv_relu(*leaves)
        assert not y.requires_grad and torch.equal(y, expected)


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = ConvReLU2d(3, 8, 3, padding="same", threshold_init=("gaussian", 0.5))
        self.norm = torch.nn.BatchNorm2d(8)
        self.second = ConvReLU2d(8, 4, 3, stride=2, groups=2, threshold_init=("uniform", 0.5))
        self.ada = AdaReLU(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.ada(self.second(self.norm(self.first(x)))).mean((2, 3))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_compile(dynamic: bool, last: bool) -> None:
    torch.compiler.reset()
    network = Network()
    compiled = torch.compile(network, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for batch in (2, 3) if dynamic else (2,):
        x = torch.randn(batch, 3, 9, 9)
        if last:
            x = x.contiguous(memory_format=torch.channels_last)
        rows = []
        for module in (network, compiled):
            network.zero_grad()
            y = module(x)
            y.square().sum().backward()
            rows.append([y.detach(), *(p.grad.clone() for p in network.parameters())])
        for a, b in zip(*rows, strict=True):
            torch.testing.assert_close(a, b)


def test_compile_with_inductor() -> None:
    import shutil

    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("inductor needs a C++ compiler")
    torch.compiler.reset()
    network = Network()
    x = torch.randn(2, 3, 9, 9)
    y = network(x)
    y.square().sum().backward()
    expected = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    again = torch.compile(network, fullgraph=True)(x)
    again.square().sum().backward()
    torch.testing.assert_close(again, y)
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5)


def test_export() -> None:
    network = Network().eval()
    x = torch.randn(2, 3, 9, 9)
    batch = torch.export.Dim("batch", min=2, max=64)
    exported = torch.export.export(network, (x,), dynamic_shapes=({0: batch},))
    targets = [str(node.target) for node in exported.graph.nodes]
    assert targets.count("convrelu.forward.default") == 2
    x = torch.randn(5, 3, 9, 9)
    torch.testing.assert_close(exported.module()(x), network(x))


def test_func_grad() -> None:
    leaves = [leaf.detach() for leaf in operands()]

    def loss(*leaves: torch.Tensor) -> torch.Tensor:
        return functional.conv_relu(*leaves, padding=1).square().sum()

    found = torch.func.grad(loss, argnums=(0, 1, 2, 3))(*leaves)
    inputs = [leaf.clone().requires_grad_() for leaf in leaves]
    expected = torch.autograd.grad(loss(*inputs), inputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)

    network = Network().eval()
    parameters = dict(network.named_parameters())
    x = torch.randn(2, 3, 9, 9)

    def of_parameters(parameters: dict) -> torch.Tensor:
        return torch.func.functional_call(network, parameters, (x,)).square().sum()

    gradients = torch.func.grad(of_parameters)(parameters)
    of_parameters(parameters).backward()
    for name, parameter in parameters.items():
        torch.testing.assert_close(gradients[name], parameter.grad)


def test_autocast_runs_in_float32() -> None:
    layer = ConvReLU2d(3, 4, 3, threshold_init=("gaussian", 1.0))
    x = torch.randn(2, 3, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x.bfloat16())
        assert y.dtype is torch.float32
        y.sum().backward()
    torch.testing.assert_close(y, layer(x.bfloat16().float()))
    assert layer.thresholds.grad is not None and layer.thresholds.grad.dtype is torch.float32


def test_subclasses_and_modes_see_the_operator() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    layer, x = ConvReLU2d(3, 4, 3), torch.randn(2, 3, 6, 6)
    expected = layer(x)
    with Watch():
        assert torch.equal(layer(x), expected)
    assert "convrelu.forward.default" in seen


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    layer = ConvReLU1d(3, 4, 3, padding=1, threshold_init=("gaussian", 1.0))
    x = torch.randn(2, 3, 20)
    expected = layer(x)
    y = layer.to(dtype)(x.to(dtype))
    assert y.dtype is dtype
    tolerance = 1e-5 if dtype is torch.float64 else 5e-2
    torch.testing.assert_close(y.float(), expected, rtol=tolerance, atol=tolerance)


def test_meta() -> None:
    layer, x = ConvReLU3d(3, 4, 3, device="meta"), torch.empty(2, 3, 5, 6, 7, device="meta")
    assert layer(x).shape == (2, 4, 3, 4, 5)
    with pytest.raises(TypeError, match="weight has the dtype"):
        layer(x.double())
