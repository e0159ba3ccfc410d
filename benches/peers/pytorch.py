#!/usr/bin/env python3
"""convrelu beside PyTorch: its composition of a ConvReLU layer, and its plain convolution after a ReLU.

The composition is what eq. 8 of the paper looks like in PyTorch: patches by `unfold`, `torch.where(x > theta, x, theta)`,
a matrix product; backward by autograd (input, thresholds, weight and bias together). PyTorch's times are compared with
those of `convrelu-peers`, which this script runs for each shape right before and right after PyTorch; the faster of
the two counts. Layout NCHW, one or two dimensions, one group.
"""

import argparse
import csv
import io
import math
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def parse(line):
    """A shape in benchdnn's notation: name, text, and a dictionary of its numbers, missing axes copied."""
    name = re.search(r'n"?([^"]*)"?$', line)
    numbers = {key: int(value) for key, value in re.findall(r"([a-z]+)(\d+)", line.split("_n")[0])}
    axes = [axis for axis in "dhw" if "i" + axis in numbers]
    if not axes:
        raise ValueError(f"{line}: there is no spatial axis")
    for axis in "dhw"["dhw".index(axes[0]):]:
        if "i" + axis not in numbers:
            for key in "iokspd":
                if key + axes[-1] in numbers:
                    numbers[key + axis] = numbers[key + axes[-1]]
            axes.append(axis)
    shape = {"name": name.group(1) if name else line, "text": line, "axes": axes}
    shape.update(mb=numbers.get("mb", 2), g=numbers.get("g", 1), ic=numbers["ic"], oc=numbers["oc"])
    for key, default in (("i", None), ("k", None), ("s", 1), ("p", 0), ("d", 0)):
        shape[key] = [numbers.get(key + axis, default) for axis in axes]
    return shape


def median_us(call, rounds):
    call()
    start = time.perf_counter()
    call()
    repeats = max(1, int(0.005 / max(time.perf_counter() - start, 1e-7)))
    samples = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        samples.append((time.perf_counter() - start) / repeats)
    return statistics.median(samples) * 1e6


def ours_us(shape, arguments):
    """Our times of one shape, by pass."""
    command = [arguments.peers, shape["text"], "--peers", "none", "--layouts", "nchw", "--csv"]
    command += ["--threads", str(arguments.threads), "--rounds", str(arguments.rounds)]
    if arguments.isa:
        command += ["--isa", arguments.isa]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {row["pass"]: float(row["ours_us"]) for row in csv.DictReader(io.StringIO(done.stdout))}


def theirs_us(shape, arguments, torch):
    """PyTorch's times: composition forward, its backward, plain convolution after a ReLU."""
    functional = torch.nn.functional
    # One dimension as two, of height one: `unfold` knows two only.
    def pad(values, unit):
        return values if len(values) == 2 else [unit] + values

    size, kernel = pad(shape["i"], 1), pad(shape["k"], 1)
    stride, padding = pad(shape["s"], 1), pad(shape["p"], 0)
    dilation = [d + 1 for d in pad(shape["d"], 0)]
    torch.manual_seed(1)
    x = torch.randn(shape["mb"], shape["ic"], *size, requires_grad=True)
    weight = torch.randn(shape["oc"], shape["ic"] * math.prod(kernel), requires_grad=True)
    theta = torch.randn(shape["ic"] * math.prod(kernel), 1, requires_grad=True)
    bias = torch.zeros(shape["oc"], 1, requires_grad=True)

    def composition():
        patches = functional.unfold(x, kernel, dilation=dilation, padding=padding, stride=stride)
        return weight @ torch.where(patches > theta, patches, theta) + bias

    with torch.no_grad():
        forward = median_us(composition, arguments.rounds)
        filters = weight.view(shape["oc"], shape["ic"], *kernel)
        plain = median_us(
            lambda: functional.conv2d(functional.relu(x), filters, bias.view(-1), stride, padding, dilation),
            arguments.rounds,
        )
    gradient = torch.randn_like(composition())

    def both():
        for tensor in (x, weight, theta, bias):
            tensor.grad = None
        composition().backward(gradient)

    return forward, max(median_us(both, arguments.rounds) - forward, 0.0), plain


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("shapes", nargs="?", type=Path, default=HERE / "shapes", help="file of shapes [%(default)s]")
    parser.add_argument("--threads", type=int, default=1, help="threads on both sides [%(default)s]")
    parser.add_argument("--isa", help="instruction set that both sides are held to: avx2 or avx512")
    parser.add_argument("--rounds", type=int, default=9, help="samples, of which the median counts [%(default)s]")
    parser.add_argument(
        "--peers", default=str(HERE / "target/release/convrelu-peers"), help="our side's program [%(default)s]"
    )
    arguments = parser.parse_args()
    if not os.access(arguments.peers, os.X_OK):
        parser.error(f"--peers: {arguments.peers} is missing; build it with cargo build --release")
    if arguments.isa:
        # Read when PyTorch is imported: its own kernels, and oneDNN's.
        os.environ["ATEN_CPU_CAPABILITY"] = arguments.isa
        os.environ["ONEDNN_MAX_CPU_ISA"] = {"avx2": "AVX2"}.get(arguments.isa, "ALL")
    try:
        import torch
    except ImportError:
        parser.error("PyTorch is not installed")
    torch.set_num_threads(arguments.threads)
    if arguments.threads == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

    print(f"PyTorch {torch.__version__}, {arguments.threads} thread(s); ratio = PyTorch's time / ours")
    print("shape    forward µs  ratio   backward µs  ratio   relu+conv µs  ratio")
    logarithms = []
    for line in arguments.shapes.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        shape = parse(line.strip())
        if shape["g"] != 1 or len(shape["axes"]) > 2:
            print(f"{shape['name']:8} left out: groups or three dimensions")
            continue
        before = ours_us(shape, arguments)
        forward, backward, plain = theirs_us(shape, arguments, torch)
        after = ours_us(shape, arguments)
        ours = {key: min(before[key], after[key]) for key in before}
        ours_backward = ours["backward-input"] + ours["backward-weight"]
        ratios = forward / ours["forward"], backward / ours_backward, plain / ours["forward"]
        logarithms.append([math.log(max(ratio, 1e-9)) for ratio in ratios])
        print(
            f"{shape['name']:8} {ours['forward']:10.1f} {ratios[0]:6.2f}   {ours_backward:11.1f} {ratios[1]:6.2f}"
            f"   {plain:12.1f} {ratios[2]:6.2f}",
            flush=True,
        )
    if logarithms:
        means = [math.exp(statistics.fmean(column)) for column in zip(*logarithms)]
        print(f"geometric mean of ratios: forward {means[0]:.2f}, backward {means[1]:.2f}, relu+conv {means[2]:.2f}")


if __name__ == "__main__":
    sys.exit(main())
