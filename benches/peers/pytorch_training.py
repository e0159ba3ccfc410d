#!/usr/bin/env python3
"""Training throughput of PyTorch on the CPU beside that of `convrelu train`, in images per second.

The networks are the usual ones for 32×32 images, with ReLU everywhere or with ConvReLU in their first block. PyTorch
composes a ConvReLU layer as eq. 8 of the paper reads: patches by `unfold`, `torch.where(patches > theta, patches,
theta)`, a matrix product; backward by autograd. A step is forward, loss, backward and optimiser (SGD with momentum and
weight decay) on one batch of random images, in f32. For each network our program runs right before and right after
PyTorch; the faster of the two counts.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

try:
    import torch
except ImportError:
    sys.exit("PyTorch is not installed")
from torch import nn

ROOT = Path(__file__).resolve().parents[2]

# By mode: the activation of the first block, and whether `torch.compile` takes the network.
MODES = {
    "eager": ("relu", False),
    "compile": ("relu", True),
    "convrelu": ("convrelu", False),
    "convrelu-compile": ("convrelu", True),
}


class ConvReLU(nn.Conv2d):
    """A convolution with a trained threshold per input channel and kernel tap; with thresholds of 0, ReLU before it."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.theta = nn.Parameter(torch.zeros(self.weight[0].numel(), 1))

    def forward(self, x):
        patches = nn.functional.unfold(x, self.kernel_size, padding=self.padding)
        y = self.weight.flatten(1) @ torch.where(patches > self.theta, patches, self.theta)
        if self.bias is not None:
            y = y + self.bias.view(-1, 1)
        return y.view(y.shape[0], y.shape[1], *x.shape[2:])


def relu():
    return nn.ReLU(inplace=True)


class DenseLayer(nn.Module):
    """Two convolutions, each behind its normalisation and activation; the new channels go before the old ones."""

    def __init__(self, channels, growth, convrelu):
        super().__init__()

        def activated(*shape, **options):
            return [ConvReLU(*shape, **options)] if convrelu else [relu(), nn.Conv2d(*shape, **options)]

        self.new = nn.Sequential(
            nn.BatchNorm2d(channels),
            *activated(channels, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth),
            *activated(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x):
        return torch.cat([self.new(x), x], 1)


def densenet_cifar(classes, convrelu):
    """DenseNet with bottlenecks, blocks of 6, 12, 24 and 16 layers, growth 12, compression 0.5.

    ConvReLU takes the place of the twelve activations of the first block and of the convolutions behind them.
    """
    growth = 12
    channels = 2 * growth
    layers = [nn.Conv2d(3, channels, 3, padding=1, bias=False)]
    for block, count in enumerate((6, 12, 24, 16)):
        if block > 0:
            layers += [nn.BatchNorm2d(channels), relu(), nn.Conv2d(channels, channels // 2, 1, bias=False)]
            layers.append(nn.AvgPool2d(2))
            channels //= 2
        for _ in range(count):
            layers.append(DenseLayer(channels, growth, convrelu and block == 0))
            channels += growth
    layers += [nn.BatchNorm2d(channels), relu(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(channels, classes)]
    return nn.Sequential(*layers)


def vgg16(classes, convrelu):
    """VGG-16 with normalisation and one linear layer.

    ConvReLU takes the place of the first two activations and of the convolutions behind them; the pooling between the
    second activation and the third convolution commutes with a threshold that does not depend on the tap.
    """
    channels, count, layers = 3, 0, []
    for width, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            kind = ConvReLU if convrelu and count in (1, 2) else nn.Conv2d
            layers += [kind(channels, width, 3, padding=1), nn.BatchNorm2d(width)]
            if not (convrelu and count in (0, 1)):
                layers.append(relu())
            channels, count = width, count + 1
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels, classes))


class BasicBlock(nn.Module):
    """Two convolutions around an activation, the shortcut added, an activation."""

    def __init__(self, channels, width, stride, convrelu):
        super().__init__()
        second = [] if convrelu else [relu()]
        second.append((ConvReLU if convrelu else nn.Conv2d)(width, width, 3, padding=1, bias=False))
        self.residual = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            *second,
            nn.BatchNorm2d(width),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or channels != width:
            projection = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(width))
        self.activation = relu()

    def forward(self, x):
        return self.activation(self.residual(x) + self.shortcut(x))


def resnet18(classes, convrelu):
    """ResNet-18 with a first convolution of 3×3 and no pooling behind it.

    ConvReLU takes the place of the inner activations of the first two blocks and of the convolutions behind them.
    """
    channels = 64
    layers = [nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), relu()]
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for s in (stride, 1):
            layers.append(BasicBlock(channels, width, s, convrelu and width == 64))
            channels = width
    return nn.Sequential(*layers, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(channels, classes))


# By network: what builds it, classes, parameters without thresholds, thresholds.
NETWORKS = {
    "densenet-cifar": (densenet_cifar, 100, 1_035_268, 2_916),
    "vgg16": (vgg16, 10, 14_728_266, 1_152),
    "resnet18": (resnet18, 10, 11_173_962, 1_152),
}


def build(name, activation):
    """A network with the same weights whatever its activation; the number of its parameters is checked."""
    function, classes, plain, thresholds = NETWORKS[name]
    torch.manual_seed(1)
    network = function(classes, activation == "convrelu")
    found = sum(parameter.numel() for parameter in network.parameters())
    expected = plain + (thresholds if activation == "convrelu" else 0)
    assert found == expected, f"{name}, {activation}: {found} parameters, not {expected}"
    return network


@torch.no_grad()
def check(name):
    """With thresholds of 0, ConvReLU must give what ReLU gives."""
    images = torch.randn(2, 3, 32, 32)
    plain, composed = (build(name, activation).eval()(images) for activation in ("relu", "convrelu"))
    error = (plain - composed).abs().max() / plain.abs().max()
    assert error < 1e-4, f"{name}: ConvReLU with thresholds of 0 is off by {error}"


def theirs(name, mode, arguments):
    """PyTorch's seconds per step in one mode."""
    activation, compiled = MODES[mode]
    network = build(name, activation)
    images = torch.randn(arguments.batch, 3, 32, 32)
    labels = torch.randint(NETWORKS[name][1], (arguments.batch,))
    if arguments.channels_last:
        network = network.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    if compiled:
        torch.compiler.reset()
        network = torch.compile(network)
    samples = []
    for _ in range(arguments.warmup + arguments.steps):
        start = time.perf_counter()
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimiser.step()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples[arguments.warmup:])


def ours(name, activation, arguments):
    """Our seconds per step, from the images per second of the last epoch; none where the program gives none."""
    with tempfile.TemporaryDirectory() as directory:
        command = [arguments.convrelu, "train", "--network", name, "--activation", activation, "--region", "first"]
        command += ["--dataset", "synthetic", "--limit", str(arguments.batch * arguments.steps), "--epochs", "2"]
        command += ["--batch", str(arguments.batch), "--threads", str(arguments.threads), "--out", directory, "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[0]
        print(f"{name}, {activation}: left out on our side: {reason}", file=sys.stderr)
        return None
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    speeds = [event["images_per_second"] for event in events if event.get("event") == "epoch"]
    if not speeds:
        print(f"{name}, {activation}: left out on our side: it reported no epoch", file=sys.stderr)
        return None
    return arguments.batch / speeds[-1]


def best(times):
    return min((time for time in times if time is not None), default=None)


def measure(name, arguments):
    """Rows of one network: mode, seconds per step, and PyTorch's time / ours with the same activation."""
    activations = list(dict.fromkeys(MODES[mode][0] for mode in arguments.modes)) if arguments.convrelu else []

    def run(label, function, *key):
        print(f"{name}, {label} ...", file=sys.stderr, flush=True)
        return function(name, *key, arguments)

    before = {activation: run(f"ours {activation}", ours, activation) for activation in activations}
    peers = {mode: run(mode, theirs, mode) for mode in arguments.modes}
    after = {a: run(f"ours {a}", ours, a) for a in activations if before[a] is not None}
    base = {activation: best((before[activation], after.get(activation))) for activation in activations}
    rows = [(f"ours {activation}", seconds, None) for activation, seconds in base.items() if seconds is not None]
    for mode, seconds in peers.items():
        reference = base.get(MODES[mode][0])
        rows.append((mode, seconds, None if reference is None else seconds / reference))
    return rows


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="[all]")
    parser.add_argument(
        "--modes", nargs="+", choices=MODES, default=list(MODES), help="PyTorch's activation and execution [all]"
    )
    parser.add_argument("--batch", type=positive, default=128, help="images per step [%(default)s]")
    parser.add_argument("--steps", type=positive, default=5, help="timed steps, the median counts [%(default)s]")
    parser.add_argument("--warmup", type=positive, default=2, help="steps before them, untimed [%(default)s]")
    parser.add_argument("--threads", type=positive, default=2, help="threads on both sides [%(default)s]")
    parser.add_argument("--channels-last", action="store_true", help="PyTorch's tensors as NHWC, not NCHW")
    parser.add_argument(
        "--convrelu", default=str(ROOT / "target/release/convrelu"), help="our side's program [%(default)s]"
    )
    parser.add_argument("--csv", action="store_true", help="comma-separated values instead of a table")
    arguments = parser.parse_args()
    if not os.access(arguments.convrelu, os.X_OK):
        print(f"{arguments.convrelu} is missing: PyTorch alone (cargo build --release --features cli builds it)",
              file=sys.stderr)
        arguments.convrelu = None
    torch.set_num_threads(arguments.threads)

    if arguments.csv:
        table = csv.writer(sys.stdout, lineterminator="\n")
        table.writerow(["network", "mode", "seconds_per_step", "images_per_second", "ratio"])
    else:
        capability = torch.backends.cpu.get_cpu_capability()
        layout = "NHWC" if arguments.channels_last else "NCHW"
        print(f"PyTorch {torch.__version__}, {capability}, {layout}, {arguments.threads} thread(s), batch "
              f"{arguments.batch}; ratio = PyTorch's time / ours with the same activation")
        print(f"{'network':14}  {'mode':16}  {'s/step':>8}  {'images/s':>8}  {'ratio':>5}", flush=True)
    for name in arguments.networks:
        check(name)
        for mode, seconds, ratio in measure(name, arguments):
            speed = arguments.batch / seconds
            if arguments.csv:
                ratio = "" if ratio is None else f"{ratio:.4f}"
                table.writerow([name, mode, f"{seconds:.6f}", f"{speed:.3f}", ratio])
            else:
                ratio = "" if ratio is None else f"{ratio:.2f}"
                print(f"{name:14}  {mode:16}  {seconds:8.3f}  {speed:8.1f}  {ratio:>5}".rstrip())
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
