#!/usr/bin/env python3
"""convrelu beside PyTorch, whose wheels carry a recent oneDNN.

By default PyTorch's own convolution, channels first and last, beside our side and oneDNN 3.2: forward, backward of the
input, backward of the weight with the bias. With --composition what eq. 8 of the paper looks like in PyTorch: patches by
`unfold`, `torch.where(x > theta, x, theta)`, a matrix product; backward by autograd (input, thresholds, weight and bias
together); channels first, one group.

One and two dimensions. Our times and oneDNN 3.2's are those of `convrelu-peers`, which this script runs for each shape
right before and right after PyTorch; the faster of the two counts.
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
    for key, default in (("i", None), ("o", None), ("k", None), ("s", 1), ("p", 0), ("d", 0)):
        shape[key] = [numbers.get(key + axis, default) for axis in axes]
    return shape


def is_depthwise(shape):
    return 1 < shape["g"] == shape["ic"]


def median_us(call, arguments):
    now = time.thread_time if arguments.clock == "cpu" else time.perf_counter
    call()
    start = now()
    call()
    repeats = max(1, int(0.005 / max(now() - start, 1e-7)))
    samples = []
    for _ in range(arguments.rounds):
        call()
        start = now()
        for _ in range(repeats):
            call()
        samples.append((now() - start) / repeats)
    return statistics.median(samples) * 1e6


def program_us(shape, arguments, peers, layouts):
    """Times of one shape, by pass, layout and side (`ours`, or a peer)."""
    command = [arguments.peers, shape["text"], "--peers", peers, "--layouts", layouts, "--csv"]
    command += ["--threads", str(arguments.threads), "--rounds", str(arguments.rounds)]
    command += ["--clock", arguments.clock, "--theta", arguments.theta]
    if arguments.isa:
        command += ["--isa", arguments.isa]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{arguments.peers} failed with {done.returncode}")
    times = {}
    for row in csv.DictReader(io.StringIO(done.stdout)):
        times[row["pass"], row["layout"], "ours"] = float(row["ours_us"])
        if row["peer_us"]:
            times[row["pass"], row["layout"], row["peer"]] = float(row["peer_us"])
    return times


def before_and_after(shape, arguments, peers, layouts, theirs):
    """The program's times, each the faster of two, and what `theirs` measures in between."""
    before = program_us(shape, arguments, peers, layouts)
    between = theirs()
    after = program_us(shape, arguments, peers, layouts)
    return {key: min(us, after.get(key, us)) for key, us in before.items()}, between


def in_two_dimensions(shape):
    """Size, kernel, stride, padding and dilation, those of one dimension as two of height one: conv1d does so itself,
    `unfold` and channels last know two only."""
    dilation = [d + 1 for d in shape["d"]]
    values = zip((shape["i"], shape["k"], shape["s"], shape["p"], dilation), (1, 1, 1, 0, 1))
    return [axes if len(axes) == 2 else [unit] + axes for axes, unit in values]


def convolution_us(shape, arguments, torch):
    """PyTorch's times, by pass and layout; nothing where it cannot express the shape."""
    size, kernel, stride, padding, dilation = in_two_dimensions(shape)
    torch.manual_seed(1)
    times = {}
    for layout, memory_format in (("nchw", torch.contiguous_format), ("nhwc", torch.channels_last)):
        x = torch.randn(shape["mb"], shape["ic"], *size).contiguous(memory_format=memory_format)
        weight = torch.randn(shape["oc"], shape["ic"] // shape["g"], *kernel).contiguous(memory_format=memory_format)

        def forward():
            return torch.conv2d(x, weight, None, stride, padding, dilation, shape["g"])

        gradient = torch.randn_like(forward()).contiguous(memory_format=memory_format)
        if any(o not in (None, there) for o, there in zip(shape["o"][::-1], list(gradient.shape)[::-1])):
            return {}  # other padding after than before

        def backward(*wanted):
            # Input, weight, bias.
            return torch.ops.aten.convolution_backward(
                gradient, x, weight, [shape["oc"]], stride, padding, dilation, False, [0, 0], shape["g"], wanted
            )

        with torch.no_grad():
            times["forward", layout] = median_us(forward, arguments)
            times["backward-input", layout] = median_us(lambda: backward(True, False, False), arguments)
            times["backward-weight", layout] = median_us(lambda: backward(False, True, True), arguments)
    return times


def composition_us(shape, arguments, torch):
    """PyTorch's times: composition forward, its backward, plain convolution after a ReLU."""
    functional = torch.nn.functional
    size, kernel, stride, padding, dilation = in_two_dimensions(shape)
    torch.manual_seed(1)
    x = torch.randn(shape["mb"], shape["ic"], *size, requires_grad=True)
    weight = torch.randn(shape["oc"], shape["ic"] * math.prod(kernel), requires_grad=True)
    theta = torch.randn(shape["ic"] * math.prod(kernel), 1, requires_grad=True)
    bias = torch.zeros(shape["oc"], 1, requires_grad=True)

    def composition():
        patches = functional.unfold(x, kernel, dilation=dilation, padding=padding, stride=stride)
        return weight @ torch.where(patches > theta, patches, theta) + bias

    with torch.no_grad():
        forward = median_us(composition, arguments)
        filters = weight.view(shape["oc"], shape["ic"], *kernel)
        plain = median_us(
            lambda: functional.conv2d(functional.relu(x), filters, bias.view(-1), stride, padding, dilation),
            arguments,
        )
    gradient = torch.randn_like(composition())

    def both():
        for tensor in (x, weight, theta, bias):
            tensor.grad = None
        composition().backward(gradient)

    return forward, max(median_us(both, arguments) - forward, 0.0), plain


def geometric_mean(values):
    return math.exp(statistics.fmean(math.log(max(value, 1e-9)) for value in values))


def compare_convolutions(shapes, arguments, torch):
    """A Markdown table, and geometric means of its ratios."""
    if "DNNL_LIB" not in os.environ:
        raise SystemExit("DNNL_LIB must name oneDNN 3.2's libdnnl.so (fetch-onednn.sh fetches one)")
    version = re.search(r"(?:MKL-DNN|oneDNN) v?([\d.]+)", torch.__config__.show())
    newer = f"PyTorch {torch.__version__} with oneDNN {version.group(1) if version else 'of unknown version'}"
    print(f"{newer}, {arguments.threads} thread(s), θ {arguments.theta}, {arguments.clock} clock; times in µs.")
    print("oneDNN 3.2 best: of its own format and both plain ones. Ratio = PyTorch's time / the other's.\n")
    columns = ["shape", "pass", "layout", "ours", "oneDNN 3.2 same format", "oneDNN 3.2 best", "PyTorch"]
    columns += ["PyTorch / ours", "PyTorch / 3.2 same", "PyTorch / 3.2 best"]
    print(f"| {' | '.join(columns)} |\n|{':--|' * 3}{'--:|' * 7}", flush=True)
    ratios, left_out = {}, []
    for shape in shapes:
        program, pytorch = before_and_after(
            shape, arguments, "onednn", "nchw,nhwc", lambda: convolution_us(shape, arguments, torch)
        )
        if not pytorch:
            left_out.append(shape["name"])
        for (step, layout), theirs in pytorch.items():
            ours, same = program[step, layout, "ours"], program.get((step, layout, f"onednn-{layout}"), math.nan)
            of_pass = [us for key, us in program.items() if key[0] == step and key[2] != "ours"]
            best = min(of_pass, default=math.nan)
            row = theirs / ours, theirs / same, theirs / best
            ratios.setdefault((is_depthwise(shape), step, layout), []).append(row)
            cells = [f"{us:.1f}" for us in (ours, same, best, theirs)] + [f"{ratio:.2f}" for ratio in row]
            print(f"| {shape['name']} | {step} | {layout} | {' | '.join(cells)} |", flush=True)
    print("\nGeometric means:\n")
    print(f"| layers | pass | layout | shapes | {' | '.join(columns[-3:])} |\n|{':--|' * 3}{'--:|' * 4}")
    for (depthwise, step, layout), rows in sorted(ratios.items(), key=lambda item: item[0][0]):
        kind = "depthwise" if depthwise else "dense, grouped"
        means = [f"{geometric_mean(column):.2f}" for column in zip(*rows)]
        print(f"| {kind} | {step} | {layout} | {len(rows)} | {' | '.join(means)} |")
    if left_out:
        print(f"\nLeft out, because PyTorch pads both sides alike: {', '.join(left_out)}.")


def compare_composition(shapes, arguments, torch):
    print(f"PyTorch {torch.__version__}, {arguments.threads} thread(s); ratio = PyTorch's time / ours")
    print("shape    forward µs  ratio   backward µs  ratio   relu+conv µs  ratio")
    ratios = []
    for shape in shapes:
        if shape["g"] != 1:
            print(f"{shape['name']:8} left out: groups")
            continue
        program, (forward, backward, plain) = before_and_after(
            shape, arguments, "none", "nchw", lambda: composition_us(shape, arguments, torch)
        )
        ours = {step: program[step, "nchw", "ours"] for step in ("forward", "backward-input", "backward-weight")}
        ours_backward = ours["backward-input"] + ours["backward-weight"]
        row = forward / ours["forward"], backward / ours_backward, plain / ours["forward"]
        ratios.append(row)
        print(
            f"{shape['name']:8} {ours['forward']:10.1f} {row[0]:6.2f}   {ours_backward:11.1f} {row[1]:6.2f}"
            f"   {plain:12.1f} {row[2]:6.2f}",
            flush=True,
        )
    if ratios:
        means = [geometric_mean(column) for column in zip(*ratios)]
        print(f"geometric mean of ratios: forward {means[0]:.2f}, backward {means[1]:.2f}, relu+conv {means[2]:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    lists = [HERE / "shapes", HERE / "shapes-networks"]
    parser.add_argument(
        "shapes", nargs="*", type=Path, default=lists, help="files of shapes [shapes and shapes-networks]"
    )
    parser.add_argument("--composition", action="store_true", help="ConvReLU composed in PyTorch, instead of its conv")
    parser.add_argument("--threads", type=int, default=1, help="threads on both sides [%(default)s]")
    parser.add_argument("--isa", help="instruction set that both sides are held to: avx2 or avx512")
    parser.add_argument("--theta", default="per-tap", help="our thresholds: per-tap, linear or relu [%(default)s]")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: one thread only [%(default)s]")
    parser.add_argument("--rounds", type=int, default=9, help="samples, of which the median counts [%(default)s]")
    parser.add_argument(
        "--peers", default=str(HERE / "target/release/convrelu-peers"), help="our side's program [%(default)s]"
    )
    arguments = parser.parse_args()
    if not os.access(arguments.peers, os.X_OK):
        parser.error(f"--peers: {arguments.peers} is missing; build it with cargo build --release")
    if arguments.clock == "cpu" and arguments.threads > 1:
        parser.error("--clock cpu is the time of one thread: it needs --threads 1")
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

    lines = [line.strip() for path in arguments.shapes for line in path.read_text().splitlines()]
    shapes = [parse(line) for line in lines if line and not line.startswith("#")]
    flat = [shape for shape in shapes if len(shape["axes"]) < 3]
    if len(flat) < len(shapes):
        print("left out, three dimensions:", *(shape["name"] for shape in shapes if len(shape["axes"]) == 3))
    (compare_composition if arguments.composition else compare_convolutions)(flat, arguments, torch)


if __name__ == "__main__":
    sys.exit(main())
