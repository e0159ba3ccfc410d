"""`python -m convrelu.bench`: our layer, training steps and inference of whole networks, beside PyTorch's.

Layers are those of the crate's list `shapes` (one and two dimensions). `ours` is `conv_relu` with thresholds. The peers are its
composition of `unfold`, `torch.where` and a matrix product, and a plain ReLU with a convolution, both eager and compiled by
`torch.compile`. All are forward and backward (gradients of input, weight, thresholds, bias) and take turns: one sample of each,
round after round.
"""

from __future__ import annotations

import argparse
import functools
import math
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as plain

from . import isa
from .torch import convert, fuse
from .torch.functional import conv_relu
from .torch.networks import NETWORKS


class Shape(NamedTuple):
    """A layer: batch, channels in and out, groups, image, kernel, stride, padding."""

    batch: int
    channels: int
    out: int
    groups: int
    size: tuple[int, ...]
    kernel: int
    stride: int
    padding: int


def _shapes() -> dict[str, Shape]:
    """The crate's list of layers, in benchdnn's notation (`mb8_g1ic48oc12_ih32…_n"d1"`), without those of three dimensions."""
    found = {}
    for line in Path(__file__).with_name("shapes").read_text(encoding="utf-8").split():
        if line.startswith("#") or "_id" in line:
            continue
        text, _, name = line.rpartition("_n")
        numbers = {key: int(value) for key, value in re.findall(r"([a-z]+)(\d+)", text)}
        size = tuple(numbers["i" + axis] for axis in "hw" if "i" + axis in numbers)
        counts = (numbers["mb"], numbers["ic"], numbers["oc"], numbers["g"])
        found[name.strip('"')] = Shape(*counts, size, numbers["kw"], numbers["sw"], numbers["pw"])
    return found


SHAPES = _shapes()


def composition(x: Tensor, weight: Tensor, theta: Tensor, bias: Tensor, shape: Shape) -> Tensor:
    """What a PyTorch user writes for eq. 8. One dimension is two of height one: `unfold` knows two only."""
    flat = len(shape.size) == 1
    kernel = (1, shape.kernel) if flat else (shape.kernel, shape.kernel)
    padding = (0, shape.padding) if flat else shape.padding
    stride = (1, shape.stride) if flat else shape.stride
    image = x.unsqueeze(2) if flat else x
    patches = plain.unfold(image, kernel, padding=padding, stride=stride)
    active = torch.where(patches > theta.reshape(-1, 1), patches, theta.reshape(-1, 1))
    groups = shape.groups
    rows = weight.reshape(groups, shape.out // groups, -1)
    y = rows @ active.reshape(shape.batch, groups, -1, active.shape[-1]) + bias.reshape(groups, -1, 1)
    size = [(n + 2 * shape.padding - shape.kernel) // shape.stride + 1 for n in shape.size]
    return y.reshape(shape.batch, shape.out, *size)


#: What tells the time: the wall clock, or with `--clock cpu` that of one thread, which other programs do not slow down as much.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


#: What counts of the samples. On a machine with other work the least ones are those that it did not disturb.
TAKE: dict[str, Callable[[list[float]], float]] = {"median": statistics.median, "min": min}


def interleaved(
    calls: dict[str, Callable[[], object]], rounds: int, sample_ms: float, arguments: argparse.Namespace
) -> dict[str, float]:
    """The time of each call in seconds. Each round takes one sample of every call."""
    now, take = CLOCKS[arguments.clock], TAKE[arguments.take]
    repeats = {}
    for name, call in calls.items():
        call()
        start = now()
        call()
        repeats[name] = max(1, round(sample_ms / 1e3 / max(now() - start, 1e-7)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = now()
            for _ in range(repeats[name]):
                call()
            samples[name].append((now() - start) / repeats[name])
    return {name: take(values) for name, values in samples.items()}


def _layer_calls(shape: Shape, compiled: bool) -> dict[str, Callable[[], object]]:
    torch.manual_seed(1)
    rank = len(shape.size)
    x = torch.randn(shape.batch, shape.channels, *shape.size, requires_grad=True)
    weight = torch.randn(shape.out, shape.channels // shape.groups, *[shape.kernel] * rank, requires_grad=True)
    theta = torch.randn(shape.channels, *[shape.kernel] * rank, requires_grad=True)
    bias = torch.zeros(shape.out, requires_grad=True)
    convolution = {1: plain.conv1d, 2: plain.conv2d}[rank]
    options = dict(stride=shape.stride, padding=shape.padding, groups=shape.groups)

    def composed(x: Tensor, weight: Tensor, theta: Tensor, bias: Tensor) -> Tensor:
        return composition(x, weight, theta, bias, shape)

    with torch.no_grad():
        ours, theirs = conv_relu(x, weight, theta, bias, **options), composed(x, weight, theta, bias)
        error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
        if error > 1e-5:
            raise SystemExit(f"ours and the composition differ by {error} of the largest value: {shape}")
    grad = torch.randn_like(ours)

    def both(function: Callable[..., Tensor], leaves: tuple[Tensor, ...]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(function(*leaves), leaves, grad)

    def relu_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return convolution(plain.relu(x), weight, bias, **options)

    leaves, plain_leaves = (x, weight, theta, bias), (x, weight, bias)
    calls = {
        "ours": both(lambda x, w, theta, b: conv_relu(x, w, theta, b, **options), leaves),
        "composition": both(composed, leaves),
        "relu + conv": both(relu_conv, plain_leaves),
    }
    if compiled:
        torch.compiler.reset()
        calls["composition, compiled"] = both(torch.compile(composed), leaves)
        calls["relu + conv, compiled"] = both(torch.compile(relu_conv), plain_leaves)
    return calls


def missing_compiler() -> str:
    """Why `torch.compile` does not work here, in one line; empty where it does."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(1))
    except Exception as error:  # of many types, which are not public
        return str(error).strip().splitlines()[0]
    return ""


def geometric_mean(values: list[float]) -> float:
    """Their product's root."""
    return math.exp(statistics.fmean(math.log(value) for value in values))


def layers(arguments: argparse.Namespace) -> None:
    """Prints the table of layers."""
    peers = ["composition", "relu + conv"]
    if arguments.compile:
        why = missing_compiler()
        if why:
            print(f"Without the columns of torch.compile, which needs a C++ compiler: {why}\n")
        else:
            peers = [column for peer in peers for column in (peer, f"{peer}, compiled")]
    print("forward + backward of a layer; peer's time / ours\n")
    print(f"| layer | ours µs | {' | '.join(peers)} |\n|:--|--:|{'--:|' * len(peers)}", flush=True)
    ratios: dict[str, list[float]] = {peer: [] for peer in peers}
    for name in arguments.shapes:
        times = interleaved(_layer_calls(SHAPES[name], len(peers) > 2), arguments.rounds, arguments.sample_ms, arguments)
        for peer in peers:
            ratios[peer].append(times[peer] / times["ours"])
        cells = " | ".join(f"{ratios[peer][-1]:.2f}" for peer in peers)
        print(f"| {name} | {times['ours'] * 1e6:.0f} | {cells} |", flush=True)
    print(f"| geometric mean | | {' | '.join(f'{geometric_mean(ratios[peer]):.2f}' for peer in peers)} |\n")


def overhead(arguments: argparse.Namespace) -> None:
    """Prints what one call costs on a layer so small that nothing else counts."""
    x, weight, theta = torch.randn(1, 2, 3, 3), torch.randn(2, 2, 3, 3, requires_grad=True), torch.zeros(2, 3, 3)
    calls = {"ours": lambda: conv_relu(x, weight, theta), "torch.conv2d": lambda: torch.conv2d(x, weight)}
    times = interleaved(calls, max(arguments.rounds, 101), 2, arguments)
    cells = ", ".join(f"{name} {seconds * 1e6:.1f} µs" for name, seconds in times.items())
    print(f"one forward call with gradients to come, 1 × 2→2, 3×3, 3×3: {cells}\n")


def _step(network: nn.Module, batch: int, classes: int) -> Callable[[], object]:
    torch.manual_seed(2)
    images, labels = torch.randn(batch, 3, 32, 32), torch.randint(classes, (batch,))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        optimiser.zero_grad()
        plain.cross_entropy(network(images), labels).backward()
        optimiser.step()

    return step


class _Composed(nn.Module):
    """A ConvReLU layer composed in PyTorch, in place of one of ours."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.weight, self.thresholds, self.bias = layer.weight, layer.thresholds, layer.bias
        self.stride, self.padding, self.kernel = layer.stride[0], layer.padding[0], layer.kernel_size[0]

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.zeros(self.weight.shape[0]) if self.bias is None else self.bias
        out = self.weight.shape[0]
        shape = Shape(x.shape[0], x.shape[1], out, 1, tuple(x.shape[2:]), self.kernel, self.stride, self.padding)
        return composition(x, self.weight, self.thresholds, bias, shape)


def _compare(
    arguments: argparse.Namespace,
    title: str,
    names: list[str],
    ratios: list[str],
    decimals: int,
    calls_of: Callable[[nn.Module, int], tuple[Callable[[], object], ...]],
) -> None:
    """Prints a table of networks: the time of each call in ms, and the other calls' times divided by the first's.

    `calls_of` makes the calls of a ReLU network and its number of classes, one per name.
    """
    print(f"{title}\n")
    print(f"| network | {' | '.join(names + ratios)} |\n|:--|{'--:|' * len(names + ratios)}", flush=True)
    for network in arguments.networks:
        torch.manual_seed(1)
        classes = 100 if network == "densenet_cifar" else 10
        calls = dict(zip(names, calls_of(NETWORKS[network](classes, 3), classes), strict=True))
        first, *others = interleaved(calls, arguments.steps, 0, arguments).values()
        cells = [f"{seconds * 1e3:.{decimals}f}" for seconds in (first, *others)]
        cells += [f"{seconds / first:.2f}" for seconds in others]
        print(f"| {network} | {' | '.join(cells)} |", flush=True)


def networks(arguments: argparse.Namespace) -> None:
    """Prints the table of training steps."""

    def steps(relu: nn.Module, classes: int) -> tuple[Callable[[], object], ...]:
        ours, composed = convert(relu, "first").model, convert(relu, "first").model
        for path, module in list(composed.named_modules()):
            if hasattr(module, "thresholds"):
                composed.set_submodule(path, _Composed(module))
        return tuple(_step(network, arguments.batch, classes) for network in (ours, relu, composed))

    names = ["ours, ConvReLU (R1)", "PyTorch, ReLU", "PyTorch, ConvReLU (R1)"]
    title = f"training step, batch {arguments.batch}; ms, and peer's time / ours"
    _compare(arguments, title, names, ["ReLU / ours", "ConvReLU / ours"], 0, steps)


@torch.no_grad()
def inference(arguments: argparse.Namespace) -> None:
    """Prints what `fuse` gives: forward passes of networks in evaluation mode, with ConvReLU layers wherever they fit."""

    def passes(relu: nn.Module, _classes: int) -> tuple[Callable[[], object], ...]:
        ours = convert(relu.eval(), "all").model
        images = torch.randn(arguments.batch, 3, 32, 32)
        return tuple(functools.partial(network, images) for network in (fuse(ours).model, ours, relu))

    title = f"\ninference, ConvReLU (R3), batch {arguments.batch}; ms, and time / ours, fused"
    _compare(arguments, title, ["ours, fused", "ours", "PyTorch, ReLU"], ["ours / fused", "ReLU / fused"], 1, passes)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m convrelu.bench", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--threads", type=int, default=2, help="[%(default)s]")
    parser.add_argument("--rounds", type=int, default=9, help="samples of a layer, of which the median counts [%(default)s]")
    parser.add_argument("--sample-ms", type=float, default=20, help="shortest sample [%(default)s]")
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=list(SHAPES), help="[all]")
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=["densenet_cifar", "resnet18", "vgg16"], help="[all]")
    parser.add_argument("--batch", type=int, default=128, help="images per step [%(default)s]")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a network [%(default)s]")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="time both peers with torch.compile, too, which takes minutes and needs a C++ compiler [--compile]",
    )
    parser.add_argument("--take", choices=TAKE, default="median", help="what counts of the samples [%(default)s]")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: with one thread only [%(default)s]")
    arguments = parser.parse_args()
    if arguments.clock == "cpu" and arguments.threads != 1:
        parser.error("--clock cpu adds up what all threads took: it needs --threads 1")
    torch.set_num_threads(arguments.threads)
    capability = torch.backends.cpu.get_cpu_capability()
    print(
        f"PyTorch {torch.__version__} ({capability}), convrelu {isa()}, {arguments.threads} thread(s), {arguments.clock} clock\n"
    )
    overhead(arguments)
    if arguments.shapes:
        layers(arguments)
    if arguments.networks:
        networks(arguments)
        inference(arguments)


if __name__ == "__main__":
    main()
