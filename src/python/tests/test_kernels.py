"""The kernels against the composition in float64, over random layers; threads; memory formats; slices."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import NAMES, Layer, close, random_layer

from convrelu.torch import _composition, functional

LAYERS = 600


def exact(layer: Layer, grad: torch.Tensor) -> tuple[list, list]:
    """Output and gradients in float64 on the CPU, and the sums of the absolute values that make each of them."""
    x, w, theta, b = layer.operands(torch.float64, "cpu")
    per_tap, threshold = (theta.detach(), 0.0) if isinstance(theta, torch.Tensor) else (None, theta)
    x, w, b = x.detach(), w.detach(), None if b is None else b.detach()
    geometry, g = layer.geometry(), grad.cpu().double()
    wanted = [True, per_tap is not None, True, b is not None]
    results = [_composition.forward(x, w, per_tap, threshold, b, geometry)]
    results += _composition.backward(g, x, w, per_tap, threshold, geometry, wanted)
    # The same sums over absolute values: of weights, gradients, and activated inputs.
    patches = _composition._patches(x, w.shape[2:], geometry)
    active = _composition._activate(patches, per_tap, threshold).abs()
    rows = _composition._rows(w.abs(), geometry.groups)
    columns = _composition._columns(active, geometry.groups)
    sums = [_composition._output(rows @ columns, None if b is None else b.abs(), results[0].shape)]
    sums += _composition.backward(g.abs(), x, w.abs(), per_tap, threshold, geometry, [True, wanted[1], False, wanted[3]])
    sums[3] = (_composition._flat(g.abs(), geometry.groups) @ columns.mT).reshape(w.shape)
    return results, sums


def compare(seed: int, device: str) -> None:
    """Output and gradients of a random layer in float32 against the exact ones."""
    layer = random_layer(seed, device)
    operands = layer.operands()
    # A slice or a transposed tensor stays one: gradients are asked of what it was made from.
    x = layer.input.detach().requires_grad_()
    y = functional.conv_relu(x, *operands[1:], **layer.options)
    grad = torch.randn(y.shape).to(device)
    if seed % 4 == 1:
        grad = torch.cat([torch.randn_like(y), grad], 1)[:, y.shape[1] :]
    elif seed % 4 == 2:
        grad = grad.movedim(1, -1).contiguous().movedim(-1, 1)
    leaves = [x, *operands[1:]]
    wanted = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    found = iter(torch.autograd.grad(y, wanted, grad))
    gradients = [next(found) if isinstance(leaf, torch.Tensor) else None for leaf in leaves]
    results, sums = exact(layer, grad)
    close(y.detach(), results[0], sums[0], f"layer {seed}: output")
    of = {"input": 1, "thresholds": 2, "weight": 3, "bias": 4}
    for name, gradient in zip(NAMES, gradients, strict=True):
        if gradient is not None:
            if name == "weight" and isinstance(layer.thresholds, torch.Tensor):
                # ∞ · Σ g and Σ ∞ · g differ: the kernels may take either.
                grouped = layer.thresholds.cpu().unflatten(0, (layer.options["groups"], -1))
                finite = (grouped != math.inf).repeat_interleave(layer.weight.shape[0] // grouped.shape[0], 0)
                gradient, results[3] = torch.where(finite, gradient.cpu(), 0), torch.where(finite, results[3], 0)
            close(gradient, results[of[name]], sums[of[name]], f"layer {seed}: gradient of {name}")
            assert gradient.shape == leaves[NAMES.index(name)].shape


@pytest.mark.parametrize("part", range(10))
def test_random_layers(part: int) -> None:
    for seed in range(part, LAYERS, 10):
        compare(seed, "cpu")


def test_threads_give_the_same_bits() -> None:
    layers = [random_layer(seed) for seed in range(30)]
    big = torch.randn(8, 48, 32, 32), torch.randn(12, 48, 3, 3), torch.randn(48, 3, 3), torch.randn(12)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            row = []
            for layer in layers:
                row.append(functional.conv_relu(layer.input, layer.weight, layer.thresholds, layer.bias, **layer.options))
            leaves = [tensor.clone().requires_grad_() for tensor in big]
            y = functional.conv_relu(*leaves, padding=1)
            row += [y.detach(), *torch.autograd.grad(y, leaves, torch.ones_like(y))]
            results.append(row)
    finally:
        torch.set_num_threads(before)
    for row in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], row, strict=True))


def test_channels_last_in_channels_last_out() -> None:
    for rank, memory_format in ((2, torch.channels_last), (3, torch.channels_last_3d)):
        x = torch.randn(2, 6, *[5] * rank).contiguous(memory_format=memory_format).requires_grad_()
        w = torch.randn(4, 6, *[3] * rank, requires_grad=True)
        theta = torch.randn(6, *[3] * rank, requires_grad=True)
        y = functional.conv_relu(x, w, theta)
        assert y.is_contiguous(memory_format=memory_format)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert gradient.is_contiguous(memory_format=memory_format)


def test_slices_of_channels_reach_the_kernels_without_a_copy() -> None:
    from convrelu.torch._layout import laid, layout_of

    for last in (False, True):
        wide = torch.randn(3, 10, 6, 7)
        if last:
            wide = wide.contiguous(memory_format=torch.channels_last)
        part = wide[:, 2:7]
        there, pitch = laid(part, layout_of(part))
        assert there is part and pitch == (10 if last else 10 * 42)
        w, theta = torch.randn(4, 5, 3, 3), torch.randn(5, 3, 3)
        expected = functional.conv_relu(part.contiguous(), w, theta, padding=1)
        room = torch.full((3, 9, 6, 7), math.nan)
        if last:
            room = room.contiguous(memory_format=torch.channels_last)
        out = room[:, 3:7]
        assert functional.conv_relu(part, w, theta, padding=1, out=out) is out
        torch.testing.assert_close(out, expected)
        assert bool(room[:, :3].isnan().all()) and bool(room[:, 7:].isnan().all())


def test_plain_and_relu_convolutions_are_pytorchs() -> None:
    x, w, b = torch.randn(2, 6, 9, 8), torch.randn(4, 3, 3, 3), torch.randn(4)
    options = dict(stride=2, padding=1, groups=2)
    torch.testing.assert_close(functional.conv_relu(x, w, -math.inf, b, **options), torch.conv2d(x, w, b, **options))
    torch.testing.assert_close(functional.conv_relu(x, w, 0, b, **options), torch.conv2d(x.relu(), w, b, **options))
    x = torch.randn(2, 6, 9)
    same = functional.conv_relu(x, w[..., 0], -math.inf, b, padding="same", dilation=2, groups=2)
    torch.testing.assert_close(same, torch.conv1d(x, w[..., 0], b, padding="same", dilation=2, groups=2))


def test_ties_and_nan() -> None:
    x = torch.tensor([[[1.0, 2.0, math.nan]]], requires_grad=True)
    w, theta = torch.ones(1, 1, 1, requires_grad=True), torch.ones(1, 1, requires_grad=True)
    for dtype in (torch.float32, torch.float64):
        leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in (x, w, theta)]
        y = functional.conv_relu(*leaves)
        dx, dtheta = torch.autograd.grad(y, (leaves[0], leaves[2]), torch.ones_like(y))
        assert dx.tolist() == [[[0, 1, 0]]] and dtheta.tolist() == [[1]], "a tie goes to θ, a NaN nowhere"
        assert y[0, 0, :2].tolist() == [1, 2] and bool(y[0, 0, 2].isnan())
