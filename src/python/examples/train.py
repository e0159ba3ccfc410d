#!/usr/bin/env python3
"""Trains a network of the paper with ReLU or ConvReLU, on one process or under `torchrun` on any number (gloo).

    python train.py --network small_cnn --dataset digits --activation convrelu --epochs 30
    torchrun --nproc-per-node 4 train.py --network densenet_cifar --dataset cifar10 --data path/to/cifar-10-batches-bin

The recipe is that of the crate's trainer: SGD with momentum 0.9, a learning rate that falls to a tenth after 3/7 and 5/7 of the
epochs, weight decay 5e-4; images of CIFAR are cropped from a frame of 4 zeros and flipped. Each process takes its share of every
batch, so that the batch is the same whatever their number. A checkpoint is written after every epoch; `--resume` goes on from it.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import math
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from convrelu.torch import convert, parameter_groups
from convrelu.torch.networks import NETWORKS

Data = tuple[torch.Tensor, torch.Tensor]

DIGITS = Path(__file__).resolve().parents[2] / "train/data/digits/digits.csv.gz"
CIFAR = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2023, 0.1994, 0.2010])


def normalised(train: Data, test: Data) -> tuple[Data, Data]:
    """Both parts less the mean of the training part, over its deviation."""
    mean, deviation = train[0].mean(), train[0].std(correction=0)
    return ((train[0] - mean) / deviation, train[1]), ((test[0] - mean) / deviation, test[1])


def digits(_: Path | None = None) -> tuple[Data, Data]:
    """The crate's bundled digits: 1300 of 8 × 8 pixels to train, 497 to test."""
    with gzip.open(DIGITS, "rt") as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.int64)
    images, labels = torch.from_numpy(rows[:, :64].reshape(-1, 1, 8, 8)).float(), torch.from_numpy(rows[:, 64])
    return normalised((images[:1300], labels[:1300]), (images[1300:], labels[1300:]))


def synthetic(_: Path | None = None) -> tuple[Data, Data]:
    """Noise of 3 × 32 × 32 about ten means: 512 images to train, 128 to test."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(10, 3, 32, 32, generator=generator)
    labels = torch.arange(640) % 10
    images = means[labels] + torch.randn(640, 3, 32, 32, generator=generator)
    return (images[:512], labels[:512]), (images[512:], labels[512:])


def _idx(folder: Path, name: str) -> torch.Tensor:
    """A file of the IDX format, gzipped or not."""
    path = folder / name
    raw = path.read_bytes() if path.exists() else gzip.decompress((folder / (name + ".gz")).read_bytes())
    rank = raw[3]
    extents = np.frombuffer(raw, ">u4", rank, 4).astype(int)
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(extents).copy())


def fashion_mnist(folder: Path | None) -> tuple[Data, Data]:
    """Fashion-MNIST's four IDX files."""
    if folder is None:
        sys.exit("--data is missing: fashion-mnist needs the folder of its four IDX files")
    parts = []
    for part in ("train", "t10k"):
        images, labels = _idx(folder, f"{part}-images-idx3-ubyte"), _idx(folder, f"{part}-labels-idx1-ubyte")
        parts.append((images.unsqueeze(1).float() / 255, labels.long()))
    return normalised(*parts)


def _cifar(folder: Path | None, train: list[str], test: list[str], label: int, row: int) -> tuple[Data, Data]:
    if folder is None:
        sys.exit("--data is missing: CIFAR needs the folder of its binary version")
    mean, deviation = (moment.view(3, 1, 1) for moment in CIFAR)
    parts = []
    for names in (train, test):
        raw = np.concatenate([np.fromfile(folder / name, np.uint8).reshape(-1, row) for name in names])
        images = torch.from_numpy(raw[:, -3072:].reshape(-1, 3, 32, 32)).float() / 255
        parts.append(((images - mean) / deviation, torch.from_numpy(raw[:, label].astype(np.int64))))
    return parts[0], parts[1]


def cifar10(folder: Path | None) -> tuple[Data, Data]:
    """CIFAR-10's binary version."""
    return _cifar(folder, [f"data_batch_{n}.bin" for n in range(1, 6)], ["test_batch.bin"], 0, 3073)


def cifar100(folder: Path | None) -> tuple[Data, Data]:
    """CIFAR-100's binary version, fine labels."""
    return _cifar(folder, ["train.bin"], ["test.bin"], 1, 3074)


# By name: what reads it, classes, and whether images are cropped and flipped.
DATASETS = {
    "digits": (digits, 10, False),
    "synthetic": (synthetic, 10, False),
    "fashion-mnist": (fashion_mnist, 10, False),
    "cifar10": (cifar10, 10, True),
    "cifar100": (cifar100, 100, True),
}


def augmented(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image cropped at random from a frame of 4 zeros, half of them flipped."""
    size = images.shape[-1]
    framed = functional.pad(images, [4] * 4)
    shifts = torch.randint(9, (len(images), 2), generator=generator).tolist()
    flips = torch.rand(len(images), generator=generator) < 0.5
    crops = torch.stack([image[:, y : y + size, x : x + size] for image, (y, x) in zip(framed, shifts, strict=True)])
    return torch.where(flips.view(-1, 1, 1, 1), crops.flip(3), crops)


def build(arguments: argparse.Namespace, train: Data, classes: int) -> nn.Module:
    """The network of the arguments; its initial values depend on the seed alone."""
    torch.manual_seed(arguments.seed)
    channels, size = train[0].shape[1], train[0].shape[-1]
    options = {"size": size} if arguments.network == "small_cnn" else {}
    network = NETWORKS[arguments.network](classes, channels, **options)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if arguments.activation == "relu":
        return network
    kind, _, scale = arguments.threshold_init.partition(":")
    converted, table = convert(network, arguments.region, threshold_init=(kind, float(scale)) if scale else kind)
    if arguments.rank == 0:
        print(table)
    return converted


def evaluate(network: nn.Module, test: Data, arguments: argparse.Namespace) -> tuple[float, float]:
    """Mean loss and accuracy in percent. Each process takes its share."""
    network.eval()
    images, labels = (part[arguments.rank :: arguments.world] for part in test)
    sums = torch.zeros(3, dtype=torch.float64)
    with torch.no_grad():
        for x, y in zip(images.split(arguments.batch), labels.split(arguments.batch), strict=True):
            scores = network(x)
            loss = functional.cross_entropy(scores, y, reduction="sum").item()
            sums += torch.tensor([loss, (scores.argmax(1) == y).sum().item(), len(y)], dtype=torch.float64)
    if arguments.world > 1:
        distributed.all_reduce(sums)
    return (sums[0] / sums[2]).item(), (100 * sums[1] / sums[2]).item()


def train_epoch(
    network: nn.Module, optimiser: torch.optim.Optimizer, data: Data, epoch: int, arguments: argparse.Namespace
) -> float:
    """One epoch; returns the mean loss. The order of images depends on seed and epoch, not on the number of processes."""
    network.train()
    generator = torch.Generator().manual_seed(arguments.seed * 1_000_003 + epoch)
    order = torch.randperm(len(data[1]), generator=generator)
    batches = order.split(arguments.batch)
    total = torch.zeros(2, dtype=torch.float64)
    try:
        from tqdm import tqdm

        steps = tqdm(batches, desc=f"epoch {epoch + 1}", leave=False, disable=arguments.rank != 0 or not sys.stderr.isatty())
    except ImportError:
        steps = batches
    for batch in steps:
        batch = batch[: len(batch) // arguments.world * arguments.world]
        if len(batch) == 0:
            continue
        images, labels = data[0][batch], data[1][batch]
        if DATASETS[arguments.dataset][2]:
            images = augmented(images, generator)
        mine = slice(arguments.rank * len(batch) // arguments.world, (arguments.rank + 1) * len(batch) // arguments.world)
        optimiser.zero_grad()
        loss = functional.cross_entropy(network(images[mine]), labels[mine])
        loss.backward()
        optimiser.step()
        count = mine.stop - mine.start
        total += torch.tensor([loss.item() * count, count], dtype=torch.float64)
    if arguments.world > 1:
        distributed.all_reduce(total)
    return (total[0] / total[1]).item()


def written(path: Path, write: object) -> None:
    """Writes a file whole or not at all."""
    beside = path.with_name(path.name + ".part")
    write(beside)
    os.replace(beside, path)


def run(arguments: argparse.Namespace) -> None:
    """Trains, and writes checkpoint, metrics and weights to `--out`."""
    load, classes, _ = DATASETS[arguments.dataset]
    train, test = load(arguments.data)
    plain = build(arguments, train, classes)
    network = DistributedDataParallel(plain) if arguments.world > 1 else plain
    groups = parameter_groups(plain, arguments.weight_decay, arguments.threshold_decay)
    optimiser = torch.optim.SGD(groups, lr=arguments.learning_rate, momentum=0.9)
    milestones = [arguments.epochs * 3 // 7, arguments.epochs * 5 // 7]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [m for m in milestones if m > 0], 0.1)
    out, first, rows = arguments.out, 0, []
    if arguments.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        count = sum(parameter.numel() for parameter in plain.parameters())
        print(f"{arguments.network}, {arguments.activation}: {count:,} parameters; {arguments.world} process(es)", flush=True)
    if arguments.resume:
        saved = torch.load(out / "checkpoint.pt", weights_only=True)
        plain.load_state_dict(saved["network"])
        optimiser.load_state_dict(saved["optimiser"])
        schedule.load_state_dict(saved["schedule"])
        first, rows = saved["epoch"], saved["rows"]
    for epoch in range(first, arguments.epochs):
        start = time.perf_counter()
        train_loss = train_epoch(network, optimiser, train, epoch, arguments)
        seconds = time.perf_counter() - start
        schedule.step()
        test_loss, accuracy = evaluate(plain, test, arguments)
        if not math.isfinite(train_loss):
            sys.exit(f"epoch {epoch + 1}: the loss is {train_loss}: training diverged; try a smaller --learning-rate")
        rows.append([epoch + 1, train_loss, test_loss, accuracy])
        if arguments.rank != 0:
            continue
        speed = len(train[1]) / seconds
        print(
            f"epoch {epoch + 1:3d}/{arguments.epochs}  loss {train_loss:.6f}  test loss {test_loss:.6f}  "
            f"accuracy {accuracy:.2f} %  {speed:.0f} images/s",
            flush=True,
        )
        state = {
            "network": plain.state_dict(), "optimiser": optimiser.state_dict(), "schedule": schedule.state_dict(),
            "epoch": epoch + 1, "rows": rows,
        }  # fmt: skip
        written(out / "checkpoint.pt", lambda path, state=state: torch.save(state, path))

        def table(path: Path) -> None:
            with open(path, "w", newline="") as file:
                csv.writer(file).writerows([["epoch", "train_loss", "test_loss", "test_accuracy"], *rows])

        written(out / "metrics.csv", table)
    if arguments.rank == 0:
        try:
            from safetensors.torch import save_file
        except ImportError:
            print("weights.safetensors was not written: the package safetensors is missing", file=sys.stderr)
        else:
            tensors = {name: tensor.contiguous() for name, tensor in plain.state_dict().items() if "num_batches" not in name}
            written(out / "weights.safetensors", lambda path: save_file(tensors, path))
    if arguments.world > 1:
        # A process that leaves closes its connections: none leaves while another still works.
        distributed.barrier()


def positive(text: str) -> int:
    """An integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--network", choices=NETWORKS, default="small_cnn", help="[%(default)s]")
    parser.add_argument("--activation", choices=["relu", "convrelu"], default="convrelu", help="[%(default)s]")
    parser.add_argument("--region", choices=["first", "last", "all"], default="first", help="of ConvReLU layers [%(default)s]")
    parser.add_argument("--threshold-init", default="zero", help="zero, glorot, gaussian:SCALE, uniform:SCALE [%(default)s]")
    parser.add_argument("--dataset", choices=DATASETS, default="digits", help="[%(default)s]")
    parser.add_argument("--data", type=Path, help="the folder of the data set's files")
    parser.add_argument("--epochs", type=positive, default=30, help="[%(default)s; the paper's are 350]")
    parser.add_argument("--batch", type=positive, default=128, help="images of a step, of all processes together [%(default)s]")
    parser.add_argument("--learning-rate", type=float, default=0.1, help="[%(default)s]")
    parser.add_argument("--weight-decay", type=float, default=5e-4, help="[%(default)s]")
    parser.add_argument("--threshold-decay", type=float, default=5e-4, help="[%(default)s]")
    parser.add_argument("--seed", type=int, default=1, help="[%(default)s]")
    parser.add_argument("--threads", type=positive, help="threads of each process [PyTorch's choice]")
    parser.add_argument("--out", type=Path, default=Path("runs/python"), help="[%(default)s]")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    arguments = parser.parse_args()
    arguments.world, arguments.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if arguments.batch < arguments.world:
        parser.error(f"--batch is {arguments.batch}: it must be at least the number of processes, {arguments.world}")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.world > 1:
        distributed.init_process_group("gloo")
    try:
        run(arguments)
    finally:
        if arguments.world > 1:
            distributed.destroy_process_group()


if __name__ == "__main__":
    main()
