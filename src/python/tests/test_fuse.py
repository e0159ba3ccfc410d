"""Epilogues and `fuse`, against the layer and PyTorch's operations behind it."""

from __future__ import annotations

import copy
import math
import operator
import pickle

import pytest
import torch
from conftest import close, random_layer
from torch import nn
from torch.nn import functional as plain

from convrelu.torch import ConvReLU1d, ConvReLU2d, ConvReLU3d, FusedConvReLU, _composition, convert, functional, fuse
from convrelu.torch.functional import Epilogue
from convrelu.torch.networks import densenet_cifar, resnet18, small_cnn, vgg16

BOUNDS = [(-math.inf, math.inf), (0.0, math.inf), (0.0, 6.0), (-0.5, 0.25), (-math.inf, 0.1)]


def settle(model: nn.Module) -> nn.Module:
    """The model with statistics and parameters of normalisations, and thresholds, that are not what they begin with."""
    generator = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            channels = module.num_features
            if module.running_mean is not None:
                module.running_mean = torch.randn(channels, generator=generator) * 0.3
                module.running_var = torch.rand(channels, generator=generator) + 0.5
            if module.affine:
                module.weight.data = torch.randn(channels, generator=generator)
                module.bias.data = torch.randn(channels, generator=generator)
        elif hasattr(module, "thresholds"):
            module.thresholds.data = torch.randn(module.thresholds.shape, generator=generator) * 0.3
    return model.eval()


def compare(seed: int, device: str) -> tuple[list, dict, torch.Tensor]:
    """A random layer with a random epilogue in float32 against the composition in float64 on the CPU: all parts, layouts, slices.

    Returns the operands, the options and the output.
    """
    layer = random_layer(seed, device)
    operands = [layer.input, *(t.detach() if isinstance(t, torch.Tensor) else t for t in layer.operands()[1:])]
    y = functional.conv_relu(*operands, **layer.options)
    out = y.shape[1]
    scale = torch.randn(out).to(device) if seed % 2 else None
    shift = torch.randn(out).to(device) if seed % 3 else None
    residual = None if seed % 5 == 0 else torch.randn(y.shape).to(device)
    if seed % 5 == 2:
        residual = residual.movedim(1, -1).contiguous().movedim(-1, 1)
    elif seed % 5 == 3:
        residual = torch.cat([residual, torch.randn_like(y)], 1)[:, :out]
    epilogue = Epilogue(scale, shift, residual, *BOUNDS[seed % 7 % 5])
    options = dict(layer.options, epilogue=epilogue)
    found = functional.conv_relu(*operands, **options)
    x, w, theta, b = (t.cpu().double() if isinstance(t, torch.Tensor) else t for t in operands)
    exact = Epilogue(*(None if t is None else t.cpu().double() for t in epilogue[:3]), *epilogue[3:])
    per_tap, threshold = (theta, 0.0) if isinstance(theta, torch.Tensor) else (None, theta)
    z = _composition.forward(x, w, per_tap, threshold, b, layer.geometry())
    active = _composition._activate(_composition._patches(x, w.shape[2:], layer.geometry()), per_tap, threshold).abs()
    rows = _composition._rows(w.abs(), layer.options["groups"])
    columns = _composition._columns(active, layer.options["groups"])
    sums = _composition._output(rows @ columns, None if b is None else b.abs(), z.shape)
    magnitudes = Epilogue(*(None if t is None else t.abs() for t in exact[:3]))
    expected, most = _composition.finish(z, exact), _composition.finish(sums, magnitudes)
    finite = torch.isfinite(z)
    # An infinite sum times a scale, plus a residual: the same in both, but ∞ − ∞ and 0 · ∞ depend on the order.
    cases = (torch.where(finite, tensor, other) for tensor, other in ((found.cpu(), 0), (expected, 0), (most, 1)))
    close(*cases, f"layer {seed}")
    return operands, options, found


@pytest.mark.parametrize("part", range(3))
def test_random_epilogues(part: int) -> None:
    for seed in range(part, 150, 3):
        operands, options, found = compare(seed, "cpu")
        out = found.shape[1]
        room = torch.full((found.shape[0], out + 3, *found.shape[2:]), math.nan)[:, 1 : out + 1]
        functional.conv_relu(*operands, **options, out=room)
        torch.testing.assert_close(room, found, equal_nan=True)


def test_gradients_of_an_epilogue() -> None:
    """Where a gradient is asked for, the same is computed by operations that have one."""
    layer = random_layer(7)
    x, w, theta, b = (t.detach().double().requires_grad_() for t in layer.operands() if isinstance(t, torch.Tensor))
    y = functional.conv_relu(x, w, theta, b, **layer.options)
    scale, shift, residual = torch.randn(y.shape[1]), torch.randn(y.shape[1]), torch.randn(y.shape)
    parts = [part.double().requires_grad_() for part in (scale, shift, residual)]
    z = functional.conv_relu(x, w, theta, b, **layer.options, epilogue=Epilogue(*parts, -1.0, 2.0))
    expected = (parts[0].view(-1, *[1] * (y.dim() - 2)) * y + parts[1].view(-1, *[1] * (y.dim() - 2)) + parts[2]).clamp(-1, 2)
    leaves, g = [x, w, theta, b, *parts], torch.randn(y.shape, dtype=torch.float64)
    for a, e in zip(torch.autograd.grad(z, leaves, g), torch.autograd.grad(expected, leaves, g), strict=True):
        torch.testing.assert_close(a, e)
    with torch.no_grad():
        kernels = functional.conv_relu(
            *(t.float() for t in (x, w, theta, b)),
            **layer.options,
            epilogue=Epilogue(*(part.float() for part in parts), -1.0, 2.0),
        )
    torch.testing.assert_close(kernels.double(), z, rtol=1e-4, atol=1e-4)


def test_operator() -> None:
    x, w, theta, b = torch.randn(2, 4, 5, 6), torch.randn(3, 4, 3, 2), torch.randn(4, 3, 2), torch.randn(3)
    geometry = ([1, 1], [1, 0], [1, 1], [1, 1], 1)
    for dtype in (torch.float32, torch.float64):
        tensors = [t.to(dtype) for t in (x, w, theta)]
        y = torch.ops.convrelu.forward(*tensors, 0.0, b.to(dtype), *geometry)
        scale, shift, residual = (torch.randn(*shape, dtype=dtype) for shape in ((3,), (3,), y.shape))
        for parts in ((scale, shift, residual), (None, shift, None), (None, None, residual)):
            arguments = (*tensors, 0.0, b.to(dtype), *parts, -0.5, math.inf, *geometry)
            torch.library.opcheck(torch.ops.convrelu.forward_epilogue.default, arguments)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = functional.conv_relu(x.bfloat16(), w, theta, b, epilogue=Epilogue(low=0.0))
    assert low.dtype is torch.float32 and low.min() >= 0


def test_mistakes() -> None:
    x, w, theta = torch.randn(2, 4, 5, 5), torch.randn(6, 4, 3, 3), torch.zeros(4, 3, 3)
    for epilogue, kind, words in (
        (Epilogue(scale=torch.ones(5)), ValueError, ["scale", "(5,)", "(6,)"]),
        (Epilogue(shift=torch.ones(6, 1)), ValueError, ["shift", "(6, 1)", "(6,)"]),
        (Epilogue(residual=torch.ones(6, 3, 3)), ValueError, ["residual", "(6, 3, 3)", "(2, 6, 3, 3)"]),
        (Epilogue(scale=torch.ones(6).double()), TypeError, ["scale", "float64", "float32"]),
        (Epilogue(low=1.0, high=0.0), ValueError, ["low", "1.0", "high", "0.0"]),
        (Epilogue(low=math.nan), ValueError, ["low", "nan", "NaN"]),
    ):
        with pytest.raises(kind) as caught:
            functional.conv_relu(x, w, theta, epilogue=epilogue)
        assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("build", [small_cnn, densenet_cifar, resnet18, vgg16])
def test_networks(build, last: bool) -> None:
    """The fused network computes what the network does, with and without gradients."""
    channels = 1 if build is small_cnn else 3
    size = 8 if build is small_cnn else 32
    model = settle(convert(build(), "all").model)
    fused, table = fuse(model)
    layers = [name for name, module in model.named_modules() if hasattr(module, "thresholds")]
    assert sorted(row.layer for row in table) == sorted(layers)
    assert not fused.training and any(isinstance(module, FusedConvReLU) for module in fused.modules()) == any(
        row.normalisation or row.residual or row.activation for row in table
    )
    x = torch.randn(2, channels, size, size)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected, found = model(x), fused(x)
    scale = expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * scale)
    again = fused(x)
    torch.testing.assert_close(again.detach(), expected, rtol=1e-3, atol=1e-4 * scale)
    assert again.requires_grad


def test_what_is_fused_in_a_residual_network() -> None:
    model = settle(convert(resnet18(), "all").model)
    fused, table = fuse(model)
    assert len(table) == 8
    for row in table:
        # A converted block ends in conv2, bn2, the addition of the shortcut, and a ReLU.
        block = row.layer.removesuffix(".conv2")
        assert row.normalisation == f"{block}.bn2" and row.residual is not None and row.activation is not None and not row.why
    names = {str(node.target) for node in fused.graph.nodes}
    assert not any(name.endswith("bn2") for name in names)
    text = str(table)
    assert text.splitlines()[0].split() == ["layer", "normalisation", "residual", "activation", "why"]
    assert "layer1.0.conv2" in text and "layer1.0.bn2" in text
    # The model that was given stays as it was.
    assert not any(isinstance(module, FusedConvReLU) for module in model.modules())
    only = fuse(model, lambda name, _: name == "layer1.0.conv2").table
    assert [row.layer for row in only if row.normalisation] == ["layer1.0.conv2"]
    assert {row.why for row in only if not row.normalisation} == {"the predicate says no"}


class Chain(nn.Module):
    """A layer, and steps behind it: functions of the layer's output and of the module's input."""

    def __init__(self, *steps, rank: int = 2, **modules: nn.Module) -> None:
        super().__init__()
        kind = (ConvReLU1d, ConvReLU2d, ConvReLU3d)[rank - 1]
        self.layer = kind(4, 4, 3, padding=1)
        self.steps = steps
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        for step in self.steps:
            y = step(self, y, x)
        return y


def relu_of_input(model, y, x):
    x.relu_()
    return y + x


FUSED = {
    "relu": [lambda m, y, x: y.relu()],
    "relu in place": [lambda m, y, x: plain.relu(y, inplace=True)],
    "relu6": [lambda m, y, x: plain.relu6(y)],
    "hardtanh": [lambda m, y, x: plain.hardtanh(y, -0.25, max_val=0.5)],
    "hardtanh by default": [lambda m, y, x: plain.hardtanh(y)],
    "clamp": [lambda m, y, x: torch.clamp(y, -0.1, 0.2)],
    "clamp by name": [lambda m, y, x: y.clamp(max=0.2)],
    "clamp_min": [lambda m, y, x: y.clamp_min(0.1)],
    "clamp_max": [lambda m, y, x: torch.clamp_max(y, 0.1)],
    "clip": [lambda m, y, x: torch.clip(y, 0.0, None)],
    "add": [lambda m, y, x: y + x, lambda m, y, x: y.relu_()],
    "add to": [lambda m, y, x: torch.add(x, y)],
    "add in place": [lambda m, y, x: y.add_(x), lambda m, y, x: y.clamp_(0, 1)],
    "add a number": [lambda m, y, x: y + x.size(-1)],
    "iadd": [lambda m, y, x: operator.iadd(y, x)],
    "all": [lambda m, y, x: m.norm(y), lambda m, y, x: m.nothing(y), lambda m, y, x: x + y, lambda m, y, x: m.six(y)],
    "without parameters": [lambda m, y, x: m.bare(y), lambda m, y, x: m.tanh(y)],
}


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("name", FUSED)
def test_steps_that_are_fused(name: str, rank: int) -> None:
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank - 1]
    modules = dict(norm=norm(4), bare=norm(4, affine=False), nothing=nn.Identity(), six=nn.ReLU6(), tanh=nn.Hardtanh(-1, 0.5))
    model = settle(Chain(*FUSED[name], rank=rank, **modules))
    fused, (row,) = fuse(model)
    left = [str(node.target) for node in fused.graph.nodes if node.op != "placeholder" and node.target != "size"]
    assert left == ["layer", "output"], row
    x = torch.randn(2, 4, *[6] * rank)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(fused(x), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fused(x[0]), expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fused(x).detach(), expected, rtol=1e-4, atol=1e-5)
    for other in (copy.deepcopy(fused.layer), pickle.loads(pickle.dumps(fused.layer))):
        assert type(other) is FusedConvReLU and repr(other) == repr(fused.layer)


KEPT = {
    "shortcut": ([lambda m, y, x: y.relu() + y], "more than one"),
    "twice": ([lambda m, y, x: y + y], "add"),
    "a number": ([lambda m, y, x: y + 1], "add"),
    "alpha": ([lambda m, y, x: torch.add(y, x, alpha=2)], "add"),
    "added to what others see": ([lambda m, y, x: x.add_(y)], "add"),
    "gelu": ([lambda m, y, x: plain.gelu(y)], "gelu"),
    "tensor bounds": ([lambda m, y, x: torch.clamp(y, x, x + 1)], "clamp"),
    "training": ([lambda m, y, x: m.norm(y)], "training"),
    "no statistics": ([lambda m, y, x: m.blind(y)], "running statistics"),
    "changed meanwhile": ([relu_of_input], "in place"),
    "called twice": ([lambda m, y, x: m.layer(y).relu()], "more than once"),
}


@pytest.mark.parametrize("name", KEPT)
def test_steps_that_stay(name: str) -> None:
    steps, word = KEPT[name]
    model = settle(Chain(*steps, norm=nn.BatchNorm2d(4), blind=nn.BatchNorm2d(4, track_running_stats=False)))
    if name == "training":
        model.norm.train()
    fused, table = fuse(model)
    assert all(word in row.why and (row.normalisation, row.residual, row.activation) == (None,) * 3 for row in table), table
    x = torch.randn(2, 4, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(fused(x.clone()), copy.deepcopy(model)(x.clone()))


def test_what_comes_too_late() -> None:
    """A chain ends where the order is another: the part before is fused, the rest stays."""
    steps = [lambda m, y, x: m.norm(y), lambda m, y, x: y + x, lambda m, y, x: m.norm2(y), lambda m, y, x: y.relu()]
    model = settle(Chain(*steps, norm=nn.BatchNorm2d(4), norm2=nn.BatchNorm2d(4)))
    fused, (row,) = fuse(model)
    assert row.normalisation == "norm" and row.residual == "add" and row.activation is None and "behind an addition" in row.why
    x = torch.randn(2, 4, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), model(x), rtol=1e-4, atol=1e-5)


def test_residuals_that_broadcast() -> None:
    model = settle(Chain(lambda m, y, x: y + x.mean((2, 3), keepdim=True), lambda m, y, x: y.relu()))
    fused, (row,) = fuse(model)
    assert row.residual is not None
    x = torch.randn(2, 4, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), model(x), rtol=1e-4, atol=1e-5)


def test_compile_export_and_onnx(tmp_path) -> None:
    model = settle(Chain(lambda m, y, x: m.norm(y), lambda m, y, x: y + x, lambda m, y, x: y.relu(), norm=nn.BatchNorm2d(4)))
    fused = fuse(model).model
    x = torch.randn(2, 4, 6, 6)
    with torch.no_grad():
        expected = model(x)
        torch.compiler.reset()
        compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-5)
        exported = torch.export.export(fused, (x,))
        assert "convrelu.forward_epilogue.default" in [str(node.target) for node in exported.graph.nodes]
        torch.testing.assert_close(exported.module()(x), expected, rtol=1e-4, atol=1e-5)
    from test_networks import run_onnx

    nodes, y = run_onnx(fused, x, tmp_path / "fused.onnx")
    assert nodes.count("Conv") == 2
    torch.testing.assert_close(torch.from_numpy(y), expected, rtol=1e-4, atol=1e-4)
