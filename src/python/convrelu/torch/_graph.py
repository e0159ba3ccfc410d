"""Traced networks: the trace, questions about its nodes, and tables of what was done to it."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from .modules import LEAVES

_RELUS = {functional.relu, functional.relu_, torch.relu, torch.relu_}


class Table(tuple[Any, ...]):
    """Rows of one data class; `str()` of it is a table, with the names of its fields above."""

    def __str__(self) -> str:
        if not self:
            return "nothing"
        head = [field.name for field in dataclasses.fields(self[0])]
        rows = [[_cell(getattr(row, name)) for name in head] for row in self]
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]]
        lines.insert(1, "  ".join("─" * width for width in widths))
        return "\n".join(lines)


def _cell(value: Any) -> str:
    return {True: "yes", False: "no", None: ""}.get(value, str(value))


class Network:
    """A traced network, and questions about its nodes."""

    def __init__(self, model: fx.GraphModule) -> None:
        self.model = model
        self.modules = dict(model.named_modules())

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def name(self, node: fx.Node) -> str:
        return str(node.target) if node.op == "call_module" else node.name

    def is_relu(self, node: fx.Node) -> bool:
        if node.op == "call_method":
            return node.target in ("relu", "relu_")
        return type(self.module(node)) is nn.ReLU or (node.op == "call_function" and node.target in _RELUS)

    def is_only_call(self, node: fx.Node) -> bool:
        """Whether nobody else calls the module of a node, under whatever name."""
        module = self.module(node)
        calls = sum(other.op == "call_module" and other.target == node.target for other in self.model.graph.nodes)
        return calls == 1 and sum(other is module for other in self.modules.values()) == 1

    def describe(self, node: fx.Node) -> str:
        module = self.module(node)
        if module is not None:
            return f"{type(module).__name__} {node.target}"
        return "the output" if node.op == "output" else getattr(node.target, "__name__", str(node.target))


def trace(model: nn.Module) -> fx.GraphModule:
    """The network as a graph whose leaves are PyTorch's modules and ours. Raises `ValueError` where there is none."""

    class Tracer(fx.Tracer):
        def is_leaf_module(self, module: nn.Module, name: str) -> bool:
            return isinstance(module, LEAVES) or super().is_leaf_module(module, name)

    try:
        traced = fx.GraphModule(model, Tracer().trace(model), type(model).__name__)
    except Exception as error:
        raise ValueError(
            f"model is a {type(model).__name__} that torch.fx cannot trace ({error}): its forward must not depend on values"
        ) from error
    # A function that was traced in one mode would stay in it.
    for number, node in enumerate(traced.graph.nodes):
        if node.op == "call_function" and node.target is functional.dropout:
            chance = node.args[1] if len(node.args) > 1 else node.kwargs.get("p", 0.5)
            name = f"_dropout_{number}"
            traced.add_module(name, nn.Dropout(chance).train(model.training))
            node.op, node.target, node.args, node.kwargs = "call_module", name, (node.args[0],), {}
    traced.recompile()
    return traced
