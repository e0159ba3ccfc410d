"""Shared by the tests: random layers, and what two results may differ by."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import random

import pytest
import torch

from convrelu.torch import _autograd, _epilogue, _operators, _transposed, functional
from convrelu.torch._composition import Geometry

NAMES = ("input", "weight", "thresholds", "bias")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(1)


@pytest.fixture(params=["kernels", "composition", "cuda"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The device of a test's operands: the CPU, the CPU as if it were a CUDA device, and a CUDA device.

    In the second case the dispatcher and PyTorch's operations compute what is on the CPU. In the third, a test is skipped where
    PyTorch sees no CUDA device; with `CONVRELU_REQUIRE_CUDA=1` in the environment it fails.
    """
    if request.param == "composition":
        for module, name in itertools.product((_autograd, _epilogue, _operators, _transposed), ("is_eager", "_is_ours")):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, lambda *tensors: False)
    if request.param != "cuda":
        return "cpu"
    if not torch.cuda.is_available():
        if os.environ.get("CONVRELU_REQUIRE_CUDA") == "1":
            pytest.fail("CONVRELU_REQUIRE_CUDA is 1, and torch.cuda.is_available() is false")
        pytest.skip("torch.cuda.is_available() is false")
    # TF32 rounds the factors of a product to 11 significant bits: far more than the rounding of float32 that tests allow.
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return "cuda"


#: For tests of what CUDA tensors take.
as_cuda = pytest.mark.parametrize("device", ["composition", "cuda"], indirect=True)
only_cuda = pytest.mark.parametrize("device", ["cuda"], indirect=True)


@dataclasses.dataclass
class Layer:
    """A layer and its operands, in float32."""

    input: torch.Tensor
    weight: torch.Tensor
    thresholds: torch.Tensor | float
    bias: torch.Tensor | None
    options: dict

    def operands(self, dtype: torch.dtype = torch.float32, device: str | None = None) -> list:
        """Leaves of a dtype that require gradients; a number, and no bias, stay what they are."""
        values = (self.input, self.weight, self.thresholds, self.bias)
        return [v.detach().to(device, dtype).requires_grad_() if isinstance(v, torch.Tensor) else v for v in values]

    def geometry(self) -> Geometry:
        rank = self.weight.dim() - 2
        strides = functional.axes("stride", self.options["stride"], rank, 1)
        dilations = functional.axes("dilation", self.options["dilation"], rank, 1)
        before, after = functional.paddings(self.options["padding"], self.weight.shape[2:], strides, dilations)
        return Geometry(strides, before, after, dilations, self.options["groups"])


def random_layer(seed: int, device: str = "cpu") -> Layer:
    """1D to 3D; strides, dilation, padding of all kinds, groups, depthwise; channels first, last, sliced; ties, infinite θ."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    rank = 1 + seed % 3
    depthwise = rng.random() < 0.2
    groups = rng.choice([2, 3, 5, 17]) if depthwise else rng.choice([1, 1, 1, 2, 3])
    per_group = 1 if depthwise else rng.choice([1, 2, 3, 7, 16, 33])
    channels, out = groups * per_group, groups * (rng.choice([1, 1, 2]) if depthwise else rng.choice([1, 2, 5, 12, 16, 20]))
    kernel = [rng.choice([1, 2, 3, 3, 4]) for _ in range(rank)]
    dilation = [rng.choice([1, 1, 1, 2]) for _ in range(rank)]
    stride = [1] * rank if rng.random() < 0.6 else [rng.choice([1, 2, 3]) for _ in range(rank)]
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    size = [span + rng.randrange(0, 12 if rank < 3 else 5) for span in spans]
    kind = rng.choice(["same", "valid", "numbers", "pairs"])
    if kind == "same" and any(s != 1 for s in stride):
        kind = "numbers"
    pairs = [(rng.randrange(3), rng.randrange(3)) for _ in range(rank)]
    padding = {"numbers": [before for before, _ in pairs], "pairs": pairs}
    batch = rng.choice([1, 1, 2, 3, 5])
    memory = rng.choice(["first", "last", "slice", "slice of last"])
    wide = channels + (rng.randrange(1, 4) if "slice" in memory else 0)
    x = torch.randn(batch, wide, *size).to(device)
    if "last" in memory:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    x = x[:, wide - channels :]
    weight = torch.randn(out, per_group, *kernel)
    if "last" in memory and rng.random() < 0.5:
        weight = weight.movedim(1, -1).contiguous().movedim(-1, 1)
    thresholds: torch.Tensor | float = 0.5 * torch.randn(channels, *kernel)
    which = rng.random()
    if which < 0.15:
        thresholds = rng.choice([-math.inf, 0.0, 0.3, -0.4])
    elif which < 0.4:
        # Ties: inputs and thresholds on a coarse grid.
        x, thresholds = torch.round(2 * x) / 2, torch.round(2 * thresholds) / 2
    elif which < 0.5:
        thresholds[torch.rand(thresholds.shape) < 0.3] = -math.inf
    elif which < 0.55:
        # Finite only in what is finite: an infinite threshold makes infinite outputs.
        thresholds[torch.rand(thresholds.shape) < 0.1] = math.inf
    bias = torch.randn(out) if rng.random() < 0.7 else None
    options = dict(stride=stride, padding=padding.get(kind, kind), dilation=dilation, groups=groups)
    weight, thresholds, bias = (t.to(device) if isinstance(t, torch.Tensor) else t for t in (weight, thresholds, bias))
    return Layer(x, weight, thresholds, bias, options)


def close(ours: torch.Tensor, exact: torch.Tensor, sums: torch.Tensor | float, what: str) -> None:
    """Whether ours is the exact result but for rounding: `sums` is that of the absolute values of what was added."""
    assert ours.shape == exact.shape, what
    ours = ours.cpu()
    finite = torch.isfinite(exact)
    assert torch.equal(torch.isnan(ours), torch.isnan(exact)), f"{what}: NaN elsewhere"
    same = (ours.double() == exact) | torch.isnan(exact)
    assert bool(same[~finite].all()), f"{what}: infinity elsewhere"
    bound = 4e-6 * torch.as_tensor(sums, dtype=torch.float64) + 1e-30
    error = (ours.double() - exact).abs()
    assert bool((error <= bound)[finite].all()), f"{what}: off by {error[finite].max().item()}"
