"""`convert`, Table 6, files of the crate's trainer, parameter groups, statistics, ONNX."""

from __future__ import annotations

import csv
import json
import math
import os
import runpy
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_layer
from torch import nn
from torch.nn import functional

from convrelu.torch import AdaReLU, ConvReLU1d, ConvReLU2d, ConvReLU3d, convert, parameter_groups, simplify, threshold_statistics
from convrelu.torch.networks import NETWORKS, densenet_cifar, resnet18, small_cnn, vgg16


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# Table 6 of the paper, and what the crate's trainer counts in the same networks.
@pytest.mark.parametrize(
    ("build", "classes", "plain", "thresholds"),
    [(densenet_cifar, 100, 1_035_268, 2_916), (vgg16, 10, 14_728_266, 1_152), (resnet18, 10, 11_173_962, 1_152)],
)
def test_table_6(build, classes: int, plain: int, thresholds: int) -> None:
    model = build(classes)
    assert count(model) == plain
    converted, table = convert(model, "first")
    assert count(converted) == plain + thresholds
    layers = [module for module in converted.modules() if isinstance(module, ConvReLU2d)]
    assert len(layers) == sum(pair.replaced for pair in table)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(converted.eval()(x), model.eval()(x), rtol=1e-3, atol=1e-4)


def test_regions_of_densenet() -> None:
    model = densenet_cifar()
    layers = {"first": 12, "last": 32, "all": 119}
    for region, expected in layers.items():
        _, table = convert(model, region)
        assert sum(pair.replaced for pair in table) == expected, region
    assert {pair.block for pair in convert(model, "first").table if pair.replaced} == {"dense1"}
    assert {pair.block for pair in convert(model, "last").table if pair.replaced} == {"dense4"}


def test_rules() -> None:
    """Shortcuts and what feeds no convolution stay; names stay; the original is left alone."""
    model = resnet18()
    names = set(dict(model.named_parameters()))
    converted, table = convert(model, "all")
    assert [pair.convolution for pair in table if pair.replaced] == [f"layer{s}.{b}.conv2" for s in range(1, 5) for b in (0, 1)]
    stays = [pair.why for pair in table if not pair.replaced]
    assert len(stays) == 9 and all("shortcut" in why or "no convolution" in why for why in stays)
    found = set(dict(converted.named_parameters()))
    assert found - names == {f"layer{s}.{b}.conv2.thresholds" for s in range(1, 5) for b in (0, 1)} and names <= found
    assert not any(isinstance(module, ConvReLU2d) for module in model.modules())
    text = str(table)
    assert "layer1.0.conv2" in text and "yes" in text and "more than one" in text
    only = convert(model, lambda name, module: name == "layer3.1.conv2").table
    assert [pair.convolution for pair in only if pair.replaced] == ["layer3.1.conv2"]


class Odd(nn.Module):
    """Pairs that must stay, and one behind max pooling that need not."""

    def __init__(self) -> None:
        super().__init__()
        self.reflect = nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")
        self.shared = nn.Conv2d(3, 3, 1)
        self.leaky = nn.LeakyReLU()
        self.pool = nn.MaxPool2d(2, padding=1)
        self.last = nn.Conv2d(3, 2, 3, dilation=2, padding="same")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.reflect(x.relu())
        x = self.shared(torch.relu(x))
        x = self.shared(functional.relu(x, inplace=True))
        x = functional.dropout(x, 0.5, training=self.training)
        x = self.last(self.pool(functional.relu(self.leaky(x))))
        return functional.relu(x)


def test_what_stays_and_why() -> None:
    model = Odd().eval()
    converted, table = convert(model, "all")
    assert [pair.replaced for pair in table] == [False, False, False, False, True, False]
    for pair, word in zip(table, ("reflect", "more than once", "more than once", "LeakyReLU", "", "the output"), strict=True):
        assert word in pair.why
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(converted(x), model(x))
    converted.train()
    assert not torch.equal(converted(x), converted(x)), "dropout follows the mode"
    with pytest.raises(ValueError, match="region is 'middle'"):
        convert(model, "middle")

    class Dynamic(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match="cannot trace"):
        convert(Dynamic())


def test_converted_networks_train() -> None:
    model, table = convert(small_cnn(), "all", threshold_init=("gaussian", 0.1))
    assert [pair.block for pair in table if pair.replaced] == ["1", "1", "2"]
    optimiser = torch.optim.Adam(parameter_groups(model, 5e-4, 1e-3), lr=1e-2)
    x, labels = torch.randn(32, 1, 8, 8), torch.randint(10, (32,))
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = functional.cross_entropy(model(x), labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(layer.thresholds.grad.abs().max() > 0 for layer in model.modules() if isinstance(layer, ConvReLU2d))


def test_parameter_groups() -> None:
    model = nn.Sequential(ConvReLU2d(3, 4, 3), AdaReLU(4), nn.Conv2d(4, 2, 1))
    weights, thresholds = parameter_groups(model, 0.1, 0.2)
    assert weights["weight_decay"] == 0.1 and thresholds["weight_decay"] == 0.2
    assert [p.numel() for p in thresholds["params"]] == [27, 4]
    assert len(weights["params"]) + len(thresholds["params"]) == len(list(model.parameters()))
    # L2 alone: a step shrinks thresholds by their own decay.
    layer = ConvReLU2d(3, 4, 3, threshold_init=("gaussian", 1.0))
    before = layer.thresholds.detach().clone()
    optimiser = torch.optim.SGD(parameter_groups(layer, 0.0, 0.5), lr=0.1)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    torch.testing.assert_close(layer.thresholds.detach(), before * 0.95)
    with pytest.raises(ValueError, match="threshold_decay is -1"):
        parameter_groups(layer, 0, -1)


def test_threshold_statistics() -> None:
    model = nn.Sequential(ConvReLU2d(1, 2, 1), ConvReLU2d(2, 3, 3, padding=1, threshold_init=("gaussian", 0.5)))
    with torch.no_grad():
        model[0].thresholds.fill_(2.0)
        model[1].thresholds[0, 1, 1] = 1e6
    first, second, both = threshold_statistics(model, torch.rand(4, 1, 5, 5))
    assert (first.name, first.count, first.mean, first.deviation, first.dead) == ("0", 1, 2.0, 0.0, 1.0)
    assert second.count == 18 and both.count == 19 and int(both.histogram.sum()) == 19
    values = torch.cat([layer.thresholds.flatten() for layer in model]).double()
    assert both.mean == pytest.approx(values.mean().item()) and both.deviation == pytest.approx(values.std(correction=0).item())
    # Dead is what nothing brings above its threshold, padding included.
    constant = model[0](torch.rand(1, 1, 5, 5))[0, :, 0, 0]
    alive = (constant.view(2, 1, 1) > model[1].thresholds) | (model[1].thresholds < 0) & (torch.arange(9).view(3, 3) != 4)
    assert second.dead == pytest.approx(1 - alive.double().mean().item())
    assert threshold_statistics(nn.Linear(1, 1)) == []
    assert threshold_statistics(model)[0].dead is None


# What two programs' losses of one network may differ by, in float32: 3e-7 of a loss of 0.2 was measured on one CPU, with three
# instruction sets, and every CPU rounds in another order.
LOSS = 4e-6


def test_weights_of_the_crates_trainer(tmp_path) -> None:
    """Files move both ways: names and shapes of a network are those that the crate's trainer writes.

    With `CONVRELU_RUN`, the folder of a run (`convrelu train --dataset digits --network small-cnn --activation convrelu`), the
    loss is compared, too; with `CONVRELU_PROGRAM`, the crate's program, also that of other weights, which PyTorch writes.
    """
    model = convert(small_cnn(), "first").model
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes["conv2.thresholds"] == (16, 3, 3) and shapes["conv3.thresholds"] == (16, 3, 3)
    run = os.environ.get("CONVRELU_RUN")
    if run is None:
        pytest.skip("CONVRELU_RUN names no run of the crate's trainer")
    from safetensors.torch import load_file, save_file

    weights = load_file(Path(run) / "weights.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == shapes
    model.load_state_dict(weights)
    example = runpy.run_path(str(Path(__file__).resolve().parents[1] / "examples/train.py"))
    _, (images, labels) = example["digits"]()

    def loss() -> float:
        with torch.no_grad():
            return functional.cross_entropy(model.eval()(images), labels).item()

    with open(Path(run) / "metrics.csv") as file:
        expected = float(list(csv.DictReader(file))[-1]["test_loss"])
    assert loss() == pytest.approx(expected, rel=LOSS)

    program = os.environ.get("CONVRELU_PROGRAM")
    if program is None:
        return
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.125)
    file = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), file)
    printed = subprocess.run([program, "eval", "--json", "--weights", str(file), run], check=True, capture_output=True, text=True)
    assert json.loads(printed.stdout)["loss"] == pytest.approx(loss(), rel=LOSS)


def run_onnx(model: nn.Module, x: torch.Tensor, path) -> tuple[list[str], np.ndarray]:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.onnx.export(model, (x,), str(path), dynamo=True, verbose=False)
    exported = onnx.load(str(path))
    onnx.checker.check_model(exported)
    assert {entry.domain for entry in exported.opset_import} <= {"", "pkg.onnxscript.torch_lib.common"}
    assert all(node.domain == "" for node in exported.graph.node)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return [node.op_type for node in exported.graph.node], y


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_onnx_layers(rank: int, tmp_path) -> None:
    kind = {1: ConvReLU1d, 2: ConvReLU2d, 3: ConvReLU3d}[rank]
    for number, options in enumerate((dict(padding=1, groups=2), dict(stride=2, dilation=2), dict(padding="same", bias=False))):
        kernel = 4 if options.get("padding") == "same" else 3
        layer = kind(4, 6, kernel, threshold_init=("gaussian", 0.5), **options).eval()
        x = torch.randn(2, 4, *[9] * rank)
        nodes, y = run_onnx(layer, x, tmp_path / f"{number}.onnx")
        assert nodes.count("Conv") == 2 and "Max" in nodes
        expected = layer(x).detach()
        torch.testing.assert_close(torch.from_numpy(y), expected, rtol=1e-4, atol=1e-4)


def test_onnx_of_a_network(tmp_path) -> None:
    model = convert(small_cnn(), "first", threshold_init=("gaussian", 0.2)).model.eval()
    x = torch.randn(3, 1, 8, 8)
    nodes, y = run_onnx(model, x, tmp_path / "network.onnx")
    assert nodes.count("Max") == 2
    torch.testing.assert_close(torch.from_numpy(y), model(x).detach(), rtol=1e-4, atol=1e-4)


def test_onnx_of_zero_thresholds(tmp_path) -> None:
    model = convert(small_cnn(), "first").model.eval()
    x = torch.randn(2, 1, 8, 8)
    for number, exported in enumerate((model, simplify(model))):
        nodes, y = run_onnx(exported, x, tmp_path / f"{number}.onnx")
        assert "Max" not in nodes and nodes.count("Conv") == 4 and nodes.count("Relu") == 4
        torch.testing.assert_close(torch.from_numpy(y), model(x).detach(), rtol=1e-4, atol=1e-4)
    layer = ConvReLU1d(3, 2, 4, padding="same")
    torch.testing.assert_close(simplify(layer)(x[:, 0, :3]), layer(x[:, 0, :3]))
    with torch.no_grad():
        layer.thresholds.fill_(-math.inf)
    assert type(simplify(layer)) is nn.Conv1d
    torch.testing.assert_close(simplify(layer)(x[:, 0, :3]), layer(x[:, 0, :3]))


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.0, ["Relu", "Conv"]), (-math.inf, ["Conv"]), (-0.25, ["Max", "Conv"]), (0.25, ["Pad", "Max", "Conv"])],
)
def test_onnx_of_equal_thresholds(threshold: float, expected: list[str], tmp_path) -> None:
    """Values count, not how the layer began: an export after another sees what has changed."""
    layer, x = ConvReLU2d(3, 4, 3, padding=1).eval(), torch.randn(2, 3, 7, 7)
    with torch.no_grad():
        layer.thresholds.fill_(threshold)
    nodes, y = run_onnx(layer, x, tmp_path / "equal.onnx")
    assert nodes == expected
    torch.testing.assert_close(torch.from_numpy(y), layer(x).detach(), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        layer.thresholds[1, 2, 0] += 0.5 if threshold == 0 else 1.0
    if math.isfinite(threshold):
        nodes, y = run_onnx(layer, x, tmp_path / "changed.onnx")
        assert "Max" in nodes and nodes.count("Conv") == 2
        torch.testing.assert_close(torch.from_numpy(y), layer(x).detach(), rtol=1e-4, atol=1e-4)


def test_every_network_has_a_name() -> None:
    assert set(NETWORKS) == {"densenet_cifar", "resnet18", "vgg16", "small_cnn"}
    assert not math.isnan(random_layer(0).input.sum())
