"""Networks that the program exports, in ONNX Runtime: on every test example the class and the logits of the program itself.

`CONVRELU_PROGRAM` names the program. `.ci/python` runs this in the environment of the Python package, which has what it needs.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

PROGRAM = os.environ.get("CONVRELU_PROGRAM", "")
pytestmark = pytest.mark.skipif(not PROGRAM, reason="CONVRELU_PROGRAM names no program")

DIGITS = Path(__file__).parents[2] / "src/train/data/digits/digits.csv.gz"
TRAIN = 1300
"""Images of the training part; the others are the test part."""
FEW = slice(TRAIN, TRAIN + 100)
"""Images of the test part where they are large."""
RELATIVE = 1e-4
"""What a logit may be off by, as a share of the greatest of its example: sums in another order round differently."""
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{}\n"
LENGTH = {"words": 32, "characters": 128}

EVERYWHERE = ["--region", "all", "--activation"]
CONVRELU = [*EVERYWHERE, "convrelu"]
NARROW = ["--growth", "4"]
TEXT = ["--network", "text-cnn", "--features", "8", "--units", "16"]
# Name, data, options, batch normalisations, and how many of them can be folded.
NETWORKS = [
    ("small-cnn", "digits", [*CONVRELU], 0, 0),
    ("densenet40", "digits", ["--network", "densenet40", "--depth", "3", *NARROW, *CONVRELU], 12, 0),
    ("densenet-cifar", "digits", ["--network", "densenet-cifar", *NARROW, *CONVRELU], 120, 58),
    ("resnet18", "digits", ["--network", "resnet18", "--limit", "256", *CONVRELU], 20, 20),
    ("vgg16", "mnist", ["--network", "vgg16", "--limit", "32", *CONVRELU], 13, 13),
    ("words", "words", [*TEXT, "--embedding", "6", *CONVRELU], 0, 0),
    ("characters", "characters", [*TEXT, *CONVRELU], 0, 0),
    # Channels last in memory; one threshold per element; functions that no convolution takes over.
    ("densenet-nhwc", "digits", ["--network", "densenet-cifar", *NARROW, *CONVRELU, "--channels-last"], 120, 58),
    ("small-cnn-nhwc", "digits", [*CONVRELU, "--channels-last"], 0, 0),
    ("adarelu", "digits", [*EVERYWHERE, "adarelu", "--sharing", "element", "--channels-last"], 0, 0),
    ("adarelu-resnet", "digits", ["--network", "resnet18", "--limit", "64", *EVERYWHERE, "adarelu"], 20, 20),
    ("prelu", "digits", [*EVERYWHERE, "prelu", "--sharing", "channel"], 0, 0),
    ("prelu-words", "words", [*TEXT, *EVERYWHERE, "prelu"], 0, 0),
    ("leaky-relu", "digits", [*EVERYWHERE, "leaky-relu"], 0, 0),
    ("elu", "digits", [*EVERYWHERE, "elu"], 0, 0),
    ("selu", "digits", [*EVERYWHERE, "selu"], 0, 0),
    ("relu", "digits", [], 0, 0),
]


def run(*arguments: object) -> str:
    """What the program prints."""
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The bundled digits, as bytes, and their labels."""
    rows = np.loadtxt(gzip.decompress(DIGITS.read_bytes()).decode().splitlines(), dtype=np.int64, delimiter=",")
    return rows[:, :64].reshape(-1, 1, 8, 8), rows[:, 64]


def sentences() -> dict[str, list[tuple[int, str]]]:
    """Texts of four classes, each with words of its own, and words that no training text has."""
    rng = np.random.default_rng(5)

    def text(label: int, more: int) -> str:
        words = [f"word{label * 7 + n}" if rng.random() < 0.6 else f"other{n + more}" for n in rng.integers(0, 7, 18)]
        return " ".join(words)

    train = [(n % 4, text(n % 4, 0)) for n in range(96)]
    return {"train": train, "test": [(n % 4, text(n % 4, 3)) for n in range(40)]}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data sets that need files: digits of 32 × 32 pixels as MNIST, sentences as AG's News."""
    folder = tmp_path_factory.mktemp("data")
    images, labels = digits()
    images = np.kron(images[:, 0], np.ones((4, 4), np.int64)) * 15
    for part, at in (("train", slice(0, TRAIN)), ("t10k", FEW)):
        head = np.array([0x803, len(images[at]), 32, 32], ">u4").tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + images[at].astype(np.uint8).tobytes())
        head = np.array([0x801, len(labels[at])], ">u4").tobytes()
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(head + labels[at].astype(np.uint8).tobytes())
    for part, rows in sentences().items():
        (folder / f"{part}.csv").write_text("".join(f'"{label + 1}","{text}"\n' for label, text in rows))
    return folder


def options(data: str, folder: Path) -> list[object]:
    if data == "digits":
        return ["--dataset", "digits"]
    if data == "mnist":
        return ["--dataset", "mnist", "--data", folder]
    return ["--dataset", "ag-news", "--data", folder, "--encoding", data, "--length", LENGTH[data]]


def tokens(text: str, metadata: dict[str, str]) -> np.ndarray:
    """The numbers of a text, from what the file itself says."""
    ids = np.zeros(LENGTH[metadata["text"]], np.int64)
    if metadata["text"] == "words":
        numbers = {word: 2 + n for n, word in enumerate(json.loads(metadata["vocabulary"]))}
        found = [numbers.get(word, 1) for word in re.findall(r"\w+|\S", text.lower())]
    else:
        found = [ALPHABET.index(c) + 1 if c in ALPHABET else 0 for c in reversed(text)]
    ids[: len(found)] = found[: len(ids)]
    return ids


def inputs(data: str, metadata: dict[str, str]) -> np.ndarray:
    """The test part as the network reads it."""
    if "text" in metadata:
        return np.stack([tokens(text, metadata) for _, text in sentences()["test"]])
    images = digits()[0][TRAIN:]
    if data == "mnist":
        images = np.kron(digits()[0][FEW, 0], np.ones((4, 4), np.int64))[:, None] * 15
    mean, deviation = (np.array(json.loads(metadata[key]))[:, None, None] for key in ("mean", "deviation"))
    return ((images * float(metadata["scale"]) - mean) / deviation).astype(np.float32)


def logits(session: onnxruntime.InferenceSession, x: np.ndarray) -> np.ndarray:
    """All examples but the last at once, and that one alone: the number of examples is free."""
    (name,) = [value.name for value in session.get_inputs()]
    return np.concatenate([session.run(["logits"], {name: part})[0] for part in (x[:-1], x[-1:])])


def check(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(inferred, full_check=True)
    stated = {value.name: value for value in model.graph.value_info}
    produced = {output for node in model.graph.node for output in node.output}
    assert produced == set(stated) | {"logits"}
    assert {value.name: value for value in inferred.graph.value_info} == stated
    assert all(node.name for node in model.graph.node)


@pytest.mark.parametrize(("name", "data", "arguments", "norms", "foldable"), NETWORKS, ids=[row[0] for row in NETWORKS])
def test_networks(name, data, arguments, norms, foldable, folder, tmp_path) -> None:
    out, table = tmp_path / "run", tmp_path / "logits.csv"
    rate = "0.002" if "vgg16" in arguments or "selu" in arguments else "0.01"
    training = ["--epochs", "1", "--batch", "16", "--threads", "2", "--learning-rate", rate, "--out", out]
    run("train", *options(data, folder), *arguments, *training)
    run("eval", out, "--logits", table)
    rows = list(csv.reader(table.open()))
    assert rows[0][:3] == ["example", "label", "predicted"]
    expected = np.array([row[3:] for row in rows[1:]], np.float32)
    convrelus = 0
    for fold in (False, True):
        path = tmp_path / f"{fold}.onnx"
        printed = run("export", out, "--onnx", path, *["--fold"] * fold)
        model = onnx.load(path)
        check(model)
        nodes = Counter(node.op_type for node in model.graph.node)
        folded = foldable if fold else 0
        assert nodes["BatchNormalization"] == norms - folded
        assert norms == 0 or f"{folded} of {norms} batch normalisations are folded" in printed
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        assert metadata["dataset"] in (data, "ag-news") and model.producer_name == "convrelu"
        x = inputs(data, metadata)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        found = logits(session, x)
        assert found.shape == expected.shape == (len(rows) - 1, int(metadata["classes"]))
        off = (np.abs(found - expected).max(1) / np.abs(expected).max(1)).max()
        same = (found.argmax(1) == [int(row[2]) for row in rows[1:]]).mean()
        right = (found.argmax(1) == [int(row[1]) for row in rows[1:]]).mean()
        print(f"{name}{', folded' * fold}: {same:.2%} of {len(x)} in the same class, logits within {off:.1e}")
        assert same == 1 and off <= RELATIVE
        assert right == pytest.approx(float(metadata["test_accuracy"]), abs=1e-9)
        assert session.get_modelmeta().custom_metadata_map == metadata
        convrelus = nodes["ConvReLU"]
    assert (convrelus > 0) == ("convrelu" in arguments)


def test_thresholds_that_do_nothing(tmp_path) -> None:
    """θ = 0 everywhere is a ReLU; θ = −∞ everywhere is nothing."""
    from safetensors.numpy import load_file, save_file

    out, path = tmp_path / "run", tmp_path / "model.onnx"
    run("train", *CONVRELU, "--epochs", "1", "--batch", "1300", "--learning-rate", "0", "--out", out)
    run("export", out, "--onnx", path)
    model = onnx.load(path)
    # The fourth ReLU is that before the classifier.
    assert Counter(node.op_type for node in model.graph.node) == Counter(Conv=4, Relu=4, MaxPool=2, Flatten=1, Gemm=1)
    assert not model.functions and len(model.opset_import) == 1
    tensors = load_file(out / "weights.safetensors")
    tensors["conv2.thresholds"][:] = -np.inf
    tensors["conv3.thresholds"][:] = 0.25
    save_file(tensors, tmp_path / "other.safetensors")
    run("export", out, "--onnx", path, "--weights", tmp_path / "other.safetensors")
    model = onnx.load(path)
    check(model)
    assert [(node.name, node.op_type) for node in model.graph.node if node.op_type in ("Conv", "ConvReLU", "Relu")] == [
        ("conv1", "Conv"),
        ("conv2", "Conv"),
        ("conv3", "ConvReLU"),
        ("conv4.relu", "Relu"),
        ("conv4", "Conv"),
        ("act4", "Relu"),
    ]
    assert "test_accuracy" not in {entry.key for entry in model.metadata_props}


def optimized(path: Path) -> Counter[str]:
    """The operators that ONNX Runtime is left with once it has put functions in place and computed what is constant."""
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    settings.optimized_model_filepath = str(path.with_suffix(".optimized.onnx"))
    onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(settings.optimized_model_filepath).graph.node)


def test_the_python_package_writes_the_same_layers(tmp_path) -> None:
    torch = pytest.importorskip("torch")
    from convrelu.torch import convert
    from convrelu.torch.networks import small_cnn
    from safetensors.torch import load_file

    out, ours, theirs = tmp_path / "run", tmp_path / "ours.onnx", tmp_path / "theirs.onnx"
    run("train", *CONVRELU, "--epochs", "1", "--batch", "16", "--learning-rate", "0.02", "--out", out)
    run("export", out, "--onnx", ours)
    network = convert(small_cnn(), "all").model.eval()
    network.load_state_dict(load_file(out / "weights.safetensors"))
    x = torch.randn(5, 1, 8, 8)
    torch.onnx.export(network, (x,), str(theirs), dynamo=True, verbose=False)
    for path in (ours, theirs):
        nodes = optimized(path)
        assert {kind: nodes[kind] for kind in ("Conv", "Max", "Relu")} == {"Conv": 7, "Max": 3, "Relu": 1}, path
    session = onnxruntime.InferenceSession(str(ours), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(logits(session, x.numpy()), network(x).detach().numpy(), rtol=1e-4, atol=1e-4)
