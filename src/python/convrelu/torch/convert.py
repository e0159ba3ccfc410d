"""Turns the pairs activation → convolution of an existing network into ConvReLU layers."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional

from ._graph import Network, Table, trace
from .modules import ConvReLU1d, ConvReLU2d, ConvReLU3d, ThresholdInit, check_threshold_init

__all__ = ["Conversion", "Pair", "convert", "simplify"]

_LAYERS = {nn.Conv1d: ConvReLU1d, nn.Conv2d: ConvReLU2d, nn.Conv3d: ConvReLU3d}
_OTHER_ACTIVATIONS = (nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.ReLU6, nn.Hardtanh, nn.Sigmoid, nn.Tanh)
_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
_MAX_POOL_FUNCTIONS = {
    functional.max_pool1d, functional.max_pool2d, functional.max_pool3d, torch.max_pool1d, torch.max_pool2d, torch.max_pool3d,
}  # fmt: skip
_OTHER_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_OTHER_POOL_FUNCTIONS = {functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d}

Region = Literal["first", "last", "all"] | Callable[[str, nn.Module], bool]


@dataclasses.dataclass(frozen=True)
class Pair:
    """An activation, and what became of it."""

    activation: str
    convolution: str | None
    block: str | None
    replaced: bool
    why: str


class Conversion(NamedTuple):
    """The converted network, and what was replaced."""

    model: fx.GraphModule
    table: Table  # of `Pair`


class _Pairs(Network):
    """A traced network, and questions about its activations."""

    def is_max_pool(self, node: fx.Node) -> bool:
        module = self.module(node)
        if isinstance(module, _MAX_POOLS):
            return not module.return_indices
        return node.op == "call_function" and node.target in _MAX_POOL_FUNCTIONS and not node.kwargs.get("return_indices")

    def is_pool(self, node: fx.Node) -> bool:
        other = node.op == "call_function" and node.target in _OTHER_POOL_FUNCTIONS
        return self.is_max_pool(node) or isinstance(self.module(node), _OTHER_POOLS) or other

    def transparent(self, node: fx.Node) -> bool:
        """Whether a maximum with a threshold may as well come behind it."""
        return self.is_max_pool(node) or type(self.module(node)) is nn.Identity

    def partner(self, activation: fx.Node) -> tuple[fx.Node | None, str]:
        """The only convolution that the activation feeds, or why there is none."""
        node = activation
        while True:
            users = list(node.users)
            if len(users) != 1:
                many = ", ".join(self.describe(user) for user in users)
                return None, f"feeds {many}: more than one, such as a shortcut" if users else "feeds nothing"
            node = users[0]
            if not self.transparent(node):
                break
        module = self.module(node)
        if type(module) not in _LAYERS:
            return None, f"feeds {self.describe(node)}, no convolution"
        if module.padding_mode != "zeros":
            return node, f"the convolution pads with {module.padding_mode}: a ConvReLU layer pads with zeros"
        if not self.is_only_call(node):
            return node, "the convolution is called more than once"
        return node, ""


def _blocks(network: _Pairs, pairs: list[tuple[fx.Node, fx.Node]]) -> dict[fx.Node, str]:
    """The block of each pair, by its activation.

    It is the part of the network that the convolution belongs to: the first step at which the names of the convolutions differ
    (`dense1`, `layer2`), if that holds modules. Else it counts the pools before the activation.
    """
    paths = [str(convolution.target).split(".") for _, convolution in pairs]
    depth = 0
    while paths and all(len(path) > depth + 1 and path[: depth + 1] == paths[0][: depth + 1] for path in paths):
        depth += 1
    pools, by_pools = 0, {}
    for node in network.model.graph.nodes:
        pools += network.is_pool(node)
        by_pools[node] = f"{pools + 1}"
    if all(len(path) > depth + 1 for path in paths):
        return {a: ".".join(path[: depth + 1]) for (a, _), path in zip(pairs, paths, strict=True)}
    return {activation: by_pools[activation] for activation, _ in pairs}


def _layer(convolution: nn.Module, threshold_init: ThresholdInit) -> nn.Module:
    """A ConvReLU layer with the parameters of a convolution."""
    weight = convolution.weight
    layer = _LAYERS[type(convolution)](
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,
        convolution.stride,
        convolution.padding,
        convolution.dilation,
        convolution.groups,
        convolution.bias is not None,
        threshold_init=threshold_init,
        device=weight.device,
        dtype=weight.dtype,
    )
    layer.weight, layer.bias = weight, convolution.bias
    return layer.train(convolution.training)


def convert(model: nn.Module, region: Region = "first", *, threshold_init: ThresholdInit = "zero") -> Conversion:
    """A copy of `model` in which ConvReLU layers stand for activations and the convolutions behind them.

    An activation is replaced where it is a ReLU that feeds one convolution and nothing else. Max pooling between them commutes
    with it. An activation that also feeds a shortcut stays. With thresholds of zero, the copy computes what the network does.

    `region` says where: in the `"first"` block (R1 of the paper), the `"last"` (R2), `"all"` (R3), or wherever a predicate of the
    convolution's name and module is true. A block is a part of the network (`layer1`, `dense1`); where convolutions are not in
    parts, it ends with a pool.

    Names of parameters stay; each layer adds `….thresholds`. Returns the copy, a `torch.fx.GraphModule`, and a table that says
    what was replaced, what not, and why.
    """
    if not (callable(region) or region in ("first", "last", "all")):
        raise ValueError(f"region is {region!r}: it must be 'first', 'last', 'all', or a function of a name and a module")
    check_threshold_init(threshold_init)
    traced = trace(copy.deepcopy(model))
    network = _Pairs(traced)
    rows: list[tuple[fx.Node, fx.Node | None, str]] = []
    for node in traced.graph.nodes:
        if network.is_relu(node):
            rows.append((node, *network.partner(node)))
        elif isinstance(network.module(node), _OTHER_ACTIVATIONS):
            rows.append((node, None, f"{type(network.module(node)).__name__} is no ReLU: a threshold cannot stand for it"))
    pairs = [(activation, convolution) for activation, convolution, why in rows if convolution is not None and not why]
    blocks = _blocks(network, pairs)
    order = list(dict.fromkeys(blocks.values()))
    table = []
    for activation, convolution, why in rows:
        block = blocks.get(activation)
        if block is not None and not why:
            if callable(region):
                why = "" if region(str(convolution.target), network.module(convolution)) else "the predicate says no"
            elif region != "all":
                wanted = order[0] if region == "first" else order[-1]
                why = "" if block == wanted else f"block {block} is not the {region}"
        name = None if convolution is None else str(convolution.target)
        table.append(Pair(network.name(activation), name, block, not why, why))
        if not why:
            traced.set_submodule(name, _layer(network.module(convolution), threshold_init))
            source: Any = activation.args[0] if activation.args else activation.kwargs["input"]
            activation.replace_all_uses_with(source)
            traced.graph.erase_node(activation)
    traced.graph.lint()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return Conversion(traced, Table(table))


def simplify(model: nn.Module) -> nn.Module:
    """A copy of `model` in which layers whose thresholds are all 0 are ReLU and convolution again, and −∞ a convolution alone.

    It computes the same, in modules that need no `convrelu`. (`torch.onnx.export` does it by itself.)
    """
    model = copy.deepcopy(model)
    plain = {ours: theirs for theirs, ours in _LAYERS.items()}
    for name, layer in list(model.named_modules()):
        if type(layer) not in plain:
            continue
        thresholds = layer.thresholds.detach()
        zero, linear = bool((thresholds == 0).all()), bool((thresholds == -float("inf")).all())
        before, after = layer._geometry.padding_before, layer._geometry.padding_after
        if not (zero or linear) or (before != after and layer.padding != "same"):
            continue
        padding = layer.padding if isinstance(layer.padding, str) else before
        options = dict(padding=padding, dilation=layer.dilation, groups=layer.groups, bias=layer.bias is not None, device="meta")
        sizes = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride)
        convolution = plain[type(layer)](*sizes, **options)
        convolution.weight, convolution.bias = layer.weight, layer.bias
        new = nn.Sequential(nn.ReLU(), convolution) if zero else convolution
        new.train(layer.training)
        if name == "":
            return new
        model.set_submodule(name, new)
    return model
