"""Transposed convolutions against PyTorch's."""

from __future__ import annotations

import random

import pytest
import torch
from conftest import close
from torch import nn
from torch.nn import functional as plain

from convrelu.torch import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, functional

THEIRS = {1: plain.conv_transpose1d, 2: plain.conv_transpose2d, 3: plain.conv_transpose3d}


def random_layer(seed: int, device: str = "cpu") -> tuple[list, dict]:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    rank = 1 + seed % 3
    groups = rng.choice([1, 1, 2, 3])
    channels, out = groups * rng.choice([1, 3, 8, 17]), groups * rng.choice([1, 2, 5, 16])
    kernel = [rng.choice([1, 2, 3, 4]) for _ in range(rank)]
    stride = [rng.choice([1, 2, 3]) for _ in range(rank)]
    dilation = [rng.choice([1, 1, 2]) for _ in range(rank)]
    extra = [rng.randrange(max(s, d)) for s, d in zip(stride, dilation, strict=True)]
    size = [rng.randrange(3, 9 if rank < 3 else 6) for _ in range(rank)]
    spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    padding = [rng.randrange(min(2, span) + 1) for span in spans]
    x = torch.randn(rng.choice([1, 2, 3]), channels + 2 * (seed % 2), *size).to(device)
    if seed % 4 >= 2:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    x = x[:, :channels]
    weight, bias = torch.randn(channels, out // groups, *kernel), torch.randn(out) if rng.random() < 0.7 else None
    options = dict(stride=stride, padding=padding, output_padding=extra, groups=groups, dilation=dilation)
    return [x, weight.to(device), None if bias is None else bias.to(device)], options


def compare(seed: int, device: str) -> None:
    """Output and gradients of a random layer in float32 against PyTorch's in float64 on the CPU."""
    operands, options = random_layer(seed, device)
    results = []
    for function, to in ((functional.conv_transpose, (device, torch.float32)), (None, ("cpu", torch.float64))):
        function = function or THEIRS[operands[0].dim() - 2]
        leaves = [None if t is None else t.detach().to(*to).requires_grad_() for t in operands]
        y = function(*leaves, **options)
        torch.manual_seed(seed)
        grad = torch.randn(y.shape)
        tensors = [leaf for leaf in leaves if leaf is not None]
        results.append([y.detach(), *torch.autograd.grad(y, tensors, grad.to(*to))])
    magnitudes = [None if t is None else t.detach().cpu().double().abs().requires_grad_() for t in operands]
    y = THEIRS[operands[0].dim() - 2](*magnitudes, **options)
    tensors = [leaf for leaf in magnitudes if leaf is not None]
    sums = [y.detach(), *torch.autograd.grad(y, tensors, grad.double().abs())]
    for number, (ours, exact, most) in enumerate(zip(*results, sums, strict=True)):
        close(ours, exact, most, f"layer {seed}: result {number}")


@pytest.mark.parametrize("part", range(5))
def test_random_layers(part: int) -> None:
    for seed in range(part, 150, 5):
        compare(seed, "cpu")


def test_second_derivatives_and_operators() -> None:
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(2, 4, 5, 4, dtype=dtype, requires_grad=True)
        w = torch.randn(4, 3, 3, 2, dtype=dtype, requires_grad=True)
        b = torch.randn(6, dtype=dtype, requires_grad=True)
        options = dict(stride=2, padding=1, output_padding=1, groups=2)
        rows = []
        for function in (functional.conv_transpose, plain.conv_transpose2d):
            y = function(x, w, b, **options)
            gradients = torch.autograd.grad(y.square().sum(), (x, w, b), create_graph=True)
            rows.append(torch.autograd.grad(sum(g.square().sum() for g in gradients), (x, w, b)))
        for ours, theirs in zip(*rows, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
        arguments = [[2, 2], [1, 1], [1, 1], [1, 1], 2]
        torch.library.opcheck(torch.ops.convrelu.conv_transpose.default, (x, w, b, *arguments))
        grad = torch.randn_like(y)
        torch.library.opcheck(torch.ops.convrelu.conv_transpose_backward.default, (grad, x, w, *arguments, [True, True, True]))
        if dtype is torch.float64:

            def layer(*leaves: torch.Tensor) -> torch.Tensor:
                return functional.conv_transpose(*leaves, 2, 1, 1, 2)

            assert torch.autograd.gradgradcheck(layer, (x, w, b), fast_mode=True)


def test_unbatched_empty_and_mistakes() -> None:
    x, w = torch.randn(2, 4, 5, 5), torch.randn(4, 3, 3, 3)
    torch.testing.assert_close(functional.conv_transpose(x[0], w), plain.conv_transpose2d(x[0], w), rtol=1e-4, atol=1e-4)
    assert functional.conv_transpose(x[:0], w).shape == (0, 3, 7, 7)
    last = functional.conv_transpose(x.contiguous(memory_format=torch.channels_last), w)
    assert last.is_contiguous(memory_format=torch.channels_last)
    for mistake, words in (
        (lambda: functional.conv_transpose(x, w[:3]), ["input", "(2, 4, 5, 5)", "3 channels"]),
        (lambda: functional.conv_transpose(x, w, torch.zeros(4)), ["bias", "(4,)", "3"]),
        (lambda: functional.conv_transpose(x, w, output_padding=1), ["output_padding", "1", "stride"]),
        (lambda: functional.conv_transpose(x, w, groups=3), ["groups", "3", "4"]),
        (lambda: functional.conv_transpose(x, w, padding=4), ["padding", "8", "7"]),
    ):
        with pytest.raises(ValueError) as caught:
            mistake()
        assert all(word in str(caught.value) for word in words), caught.value


MODULES = {
    1: (ConvTranspose1d, nn.ConvTranspose1d),
    2: (ConvTranspose2d, nn.ConvTranspose2d),
    3: (ConvTranspose3d, nn.ConvTranspose3d),
}


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_modules(rank: int, tmp_path) -> None:
    """Arguments, state, outputs and gradients are those of PyTorch's module; the kernels compute them."""
    ours_type, theirs_type = MODULES[rank]
    for arguments in (
        dict(kernel_size=3),
        dict(kernel_size=4, stride=2, padding=1, output_padding=1, groups=2, bias=False),
        dict(kernel_size=2, stride=3, dilation=2, output_padding=2),
    ):
        torch.manual_seed(1)
        ours = ours_type(4, 6, **arguments)
        torch.manual_seed(1)
        theirs = theirs_type(4, 6, **arguments)
        assert repr(ours) == repr(theirs) and isinstance(ours, theirs_type)
        for a, b in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
            assert a[0] == b[0] and torch.equal(a[1], b[1])
        x = torch.randn(2, 4, *[5] * rank)
        rows = []
        for module in (ours, theirs):
            y = module(x)
            y.square().sum().backward()
            rows.append([y.detach(), module(x[0]).detach(), *(p.grad for p in module.parameters())])
        for a, b in zip(*rows, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)
    torch.save(ours, tmp_path / "module.pt")
    assert torch.equal(torch.load(tmp_path / "module.pt", weights_only=False)(x), ours(x))
    with torch.profiler.profile() as profile:
        ours(x)
    assert not any("conv" in event.key for event in profile.key_averages()), "PyTorch computed it"


def test_output_size() -> None:
    ours, theirs = ConvTranspose2d(4, 6, 3, stride=3, padding=1), nn.ConvTranspose2d(4, 6, 3, stride=3, padding=1)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 4, 5, 5)
    for size in ([13, 13], [14, 15], [2, 6, 15, 13]):
        torch.testing.assert_close(ours(x, output_size=size), theirs(x, output_size=size), rtol=1e-4, atol=1e-4)
        assert list(ours(x, size).shape[2:]) == size[-2:]
    for size in ([16, 13], [12, 13], [13]):
        with pytest.raises(ValueError, match="output"):
            ours(x, size)


def test_modules_compile_export_and_trace() -> None:
    from convrelu.torch import convert

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), ConvTranspose2d(4, 2, 3, stride=2)).eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = network(x)
        torch.compiler.reset()
        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-4)
        exported = torch.export.export(network, (x,))
        assert "convrelu.conv_transpose.default" in [str(node.target) for node in exported.graph.nodes]
        torch.testing.assert_close(convert(network, "all").model(x), expected, rtol=1e-4, atol=1e-4)
