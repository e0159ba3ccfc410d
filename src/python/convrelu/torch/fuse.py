"""Folds what follows a ConvReLU layer into it, for inference: batch normalisation, an addition, an activation that clamps."""

from __future__ import annotations

import copy
import dataclasses
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from ._graph import Network, Table, trace
from .modules import FusedConvReLU, _ConvReLU

__all__ = ["Fused", "Fusion", "fuse"]

_NORMALISATIONS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_ADDITIONS = {operator.add, operator.iadd, torch.add}
_CLAMPS = {
    torch.clamp, torch.clip, torch.clamp_min, torch.clamp_max, torch.clamp_, torch.clip_, torch.clamp_min_, torch.clamp_max_,
    functional.relu6, functional.hardtanh, functional.hardtanh_,
}  # fmt: skip
#: Of functions and methods that clamp: where both bounds are among the arguments, their names, and what they are by default. A
#: position that no call has (9) stands for a number that is always the same.
_BOUNDS = {
    "clamp": ((1, "min", -math.inf), (2, "max", math.inf)),
    "clamp_min": ((1, "min", -math.inf), (9, "", math.inf)),
    "clamp_max": ((9, "", -math.inf), (1, "max", math.inf)),
    "relu6": ((9, "", 0.0), (9, "", 6.0)),
    "hardtanh": ((1, "min_val", -1.0), (2, "max_val", 1.0)),
}
_IN_PLACE = {operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.setitem}


@dataclasses.dataclass(frozen=True)
class Fused:
    """A ConvReLU layer, what was folded into it (names of modules or nodes, `None` for nothing), and why not more."""

    layer: str
    normalisation: str | None
    residual: str | None
    activation: str | None
    why: str


class Fusion(NamedTuple):
    """The fused network, and what was folded into which layer."""

    model: fx.GraphModule
    table: Table  # of `Fused`


def _normalisation(module: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift per channel of a batch normalisation that is evaluated. Computed in float64, as it is done once."""
    mean, variance = module.running_mean.double(), module.running_var.double()
    scale = (variance + module.eps).rsqrt()
    if module.weight is not None:
        scale = scale * module.weight.detach().double()
    shift = -mean * scale
    if module.bias is not None:
        shift = shift + module.bias.detach().double()
    dtype = module.running_mean.dtype
    return scale.to(dtype), shift.to(dtype)


class _Chains(Network):
    """A traced network, and what follows its layers."""

    def clamp(self, node: fx.Node) -> tuple[float, float] | None:
        """The bounds of a node that clamps to numbers."""
        if self.is_relu(node):
            return 0.0, math.inf
        module = self.module(node)
        if type(module) is nn.ReLU6 or type(module) is nn.Hardtanh:
            return float(module.min_val), float(module.max_val)
        if node.op == "call_function" and node.target in _CLAMPS:
            name = node.target.__name__
        elif node.op == "call_method":
            name = str(node.target)
        else:
            return None
        name = name.rstrip("_").replace("clip", "clamp")
        if name not in _BOUNDS:
            return None
        bounds = []
        for position, keyword, default in _BOUNDS[name]:
            given = len(node.args) > position
            bound = node.args[position] if given else node.kwargs.get(keyword, default)
            bounds.append(default if bound is None else bound)
        if any(isinstance(bound, bool) or not isinstance(bound, int | float) for bound in bounds):
            return None
        low, high = map(float, bounds)
        return (low, high) if low <= high else None

    def addend(self, node: fx.Node, sum: fx.Node) -> fx.Node | None:
        """What an addition adds to a node, where it leaves that as it is."""
        is_method = sum.op == "call_method" and sum.target in ("add", "add_")
        if not (is_method or (sum.op == "call_function" and sum.target in _ADDITIONS)):
            return None
        if len(sum.args) != 2 or sum.kwargs.get("alpha", 1) != 1 or set(sum.kwargs) - {"alpha"}:
            return None
        others = [argument for argument in sum.args if argument is not node]
        if len(others) != 1 or not isinstance(others[0], fx.Node) or (self.in_place(sum) and sum.args[0] is not node):
            return None
        return others[0]

    def in_place(self, node: fx.Node) -> bool:
        """Whether a node may change a tensor that others see."""
        if node.op == "call_method":
            return str(node.target).endswith("_") and not str(node.target).endswith("__")
        name = getattr(node.target, "__name__", "") if node.op == "call_function" else ""
        named = node.kwargs.get("inplace") or node.kwargs.get("out") is not None
        return bool(getattr(self.module(node), "inplace", False) or named or node.target in _IN_PLACE or name.endswith("_"))


class _Chain:
    """A layer, and the nodes behind it that are folded into it."""

    def __init__(self, layer: fx.Node) -> None:
        self.nodes = [layer]
        self.normalisation: fx.Node | None = None
        self.sum: fx.Node | None = None
        self.residual: fx.Node | None = None
        self.activation: fx.Node | None = None
        self.bounds = (-math.inf, math.inf)


def _why_not(network: _Chains, chain: _Chain, node: fx.Node) -> str:
    """Why a batch normalisation cannot be folded; empty where it can."""
    module = network.module(node)
    if type(module) is not _NORMALISATIONS[network.module(chain.nodes[0]).rank]:
        return f"{network.describe(node)} has other axes"
    if module.training:
        return f"{network.describe(node)} is in training mode"
    if module.running_mean is None or module.running_var is None:
        return f"{network.describe(node)} has no running statistics"
    if chain.sum is not None or chain.normalisation is not None:
        return f"{network.describe(node)} comes behind {'an addition' if chain.sum else 'another normalisation'}"
    return ""


def _follow(network: _Chains, layer: fx.Node) -> tuple[_Chain, str]:
    """The longest chain behind a layer, and why it is not longer."""
    chain = _Chain(layer)
    if not network.is_only_call(layer):
        return chain, "the layer is called more than once"
    if len(layer.args) != 1 or layer.kwargs:
        return chain, "the layer is not called with an input alone"
    order = list(network.model.graph.nodes)
    while chain.activation is None:
        last = chain.nodes[-1]
        users = list(last.users)
        if len(users) != 1:
            many = ", ".join(network.describe(user) for user in users)
            return chain, f"feeds {many}: more than one" if users else "feeds nothing"
        node = users[0]
        # The layer will be computed where the last node of its chain is: nothing before may change what it reads.
        between = order[order.index(layer) : order.index(node)]
        changes = [other for other in between if other not in chain.nodes and network.in_place(other)]
        if changes:
            return chain, f"{network.describe(changes[0])} works in place before {network.describe(node)}"
        bounds, addend = network.clamp(node), network.addend(last, node)
        if isinstance(network.module(node), tuple(_NORMALISATIONS.values())):
            why = _why_not(network, chain, node)
            if why:
                return chain, why
            chain.normalisation = node
        elif addend is not None and chain.sum is None:
            chain.sum, chain.residual = node, addend
        elif bounds is not None:
            chain.activation, chain.bounds = node, bounds
        elif type(network.module(node)) is not nn.Identity:
            return chain, f"feeds {network.describe(node)}"
        chain.nodes.append(node)
    return chain, ""


def fuse(model: nn.Module, layers: Callable[[str, nn.Module], bool] | None = None) -> Fusion:
    """A copy of `model` whose ConvReLU layers compute what follows them, too: for inference.

    Behind a layer, in this order, each optional: a batch normalisation in evaluation mode (call `model.eval()` first), the
    addition of another tensor, and a ReLU, ReLU6, Hardtanh or clamp. The copy computes the same but for rounding. It passes over
    memory less often where no gradient is asked for. `layers`, where it is given, says of a layer's name and module whether to
    touch it.

    Returns the copy, a `torch.fx.GraphModule`, and a table of what was folded into each layer, and why not more.
    """
    traced = trace(copy.deepcopy(model))
    network = _Chains(traced)
    table = []
    for layer in list(traced.graph.nodes):
        module = network.module(layer)
        if not isinstance(module, _ConvReLU):
            continue
        name = str(layer.target)
        if layers is not None and not layers(name, module):
            table.append(Fused(name, None, None, None, "the predicate says no"))
            continue
        chain, why = _follow(network, layer)
        parts = [chain.normalisation, chain.sum, chain.activation]
        names = [None if part is None else network.name(part) for part in parts]
        table.append(Fused(name, *names, why))
        if parts == [None] * 3:
            continue
        scale, shift = (None, None) if chain.normalisation is None else _normalisation(network.module(chain.normalisation))
        fused = FusedConvReLU(module, scale, shift, *chain.bounds)
        traced.set_submodule(name, fused)
        network.modules[name] = fused
        arguments: tuple[Any, ...] = (layer.args[0],) if chain.residual is None else (layer.args[0], chain.residual)
        with traced.graph.inserting_before(chain.nodes[-1]):
            call = traced.graph.call_module(name, arguments)
        chain.nodes[-1].replace_all_uses_with(call)
        for node in reversed(chain.nodes):
            traced.graph.erase_node(node)
    traced.graph.lint()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return Fusion(traced, Table(table))
