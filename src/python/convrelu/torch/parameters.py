"""Thresholds of a whole network: groups for the optimiser, and statistics."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from ._composition import _patches, _spread
from .modules import AdaReLU, _ConvReLU

__all__ = ["LayerStatistics", "parameter_groups", "threshold_statistics"]


def parameter_groups(model: nn.Module, weight_decay: float = 5e-4, threshold_decay: float = 0.0) -> list[dict[str, Any]]:
    """Parameters in two groups for an optimiser: thresholds with a decay (L2) of their own, and all others.

    The paper regularises both alike; a decay draws thresholds to zero, that is, to ReLU. Parameters that need no gradient are
    left out, and so is a group without any.
    """
    for name, value in (("weight_decay", weight_decay), ("threshold_decay", threshold_decay)):
        if not value >= 0:
            raise ValueError(f"{name} is {value}: it must be at least 0")
    ours = {id(module.thresholds) for module in model.modules() if isinstance(module, _ConvReLU | AdaReLU)}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if id(p) not in ours], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) in ours], "weight_decay": threshold_decay},
    ]
    return [group for group in groups if group["params"]]


@dataclasses.dataclass(frozen=True)
class LayerStatistics:
    """Thresholds of a layer, or of all layers together (`name` is empty).

    `histogram` are counts between `edges`, one more than there are counts. `dead` is the share of input channels and taps that no
    input of the batch brings above their threshold; `None` where no batch was given.
    """

    name: str
    count: int
    mean: float
    deviation: float
    histogram: Tensor
    edges: Tensor
    dead: float | None


def _statistics(name: str, thresholds: Tensor, edges: Tensor, dead: Tensor | None) -> LayerStatistics:
    values = thresholds.double()
    deviation = values.std(correction=0).item()
    share = None if dead is None else dead.double().mean().item()
    counts = torch.histc(values, edges.numel() - 1, edges[0].item(), edges[-1].item())
    return LayerStatistics(name, values.numel(), values.mean().item(), deviation, counts.long(), edges, share)


@torch.no_grad()
def threshold_statistics(model: nn.Module, batch: Any = None, *, bins: int = 41) -> list[LayerStatistics]:
    """Mean, deviation and histogram of the thresholds of every ConvReLU layer, and last of all together (figure 6).

    With a `batch`, an input of the model, the model runs once as it does for evaluation, and the share of dead units is counted.
    The bins are the same for all layers: as wide as the thresholds' largest absolute value, about zero.
    """
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise ValueError(f"bins is {bins!r}: it must be an integer of at least 1")
    layers = {name: module for name, module in model.named_modules() if isinstance(module, _ConvReLU)}
    if not layers:
        return []
    dead: dict[str, Tensor] = {}
    if batch is not None:
        hooks = []
        for name, layer in layers.items():

            def look(layer: Any, inputs: tuple[Tensor, ...], name: str = name) -> None:
                x = inputs[0] if inputs[0].dim() == layer.rank + 2 else inputs[0].unsqueeze(0)
                seen = dead.get(name)
                quiet = _quiet(x, layer)
                dead[name] = quiet if seen is None else seen & quiet

            hooks.append(layer.register_forward_pre_hook(look))
        training = model.training
        try:
            model.eval()(batch)
        finally:
            model.train(training)
            for hook in hooks:
                hook.remove()
    values = {name: layer.thresholds.detach().flatten().cpu() for name, layer in layers.items()}
    everything = torch.cat(list(values.values()))
    finite = everything[everything.isfinite()]
    largest = max(finite.abs().max().item() if finite.numel() else 0.0, 1e-6)
    edges = torch.linspace(-largest, largest, bins + 1, dtype=torch.float64)
    rows = [_statistics(name, thresholds, edges, dead.get(name)) for name, thresholds in values.items()]
    seen = torch.cat([dead[name].flatten() for name in layers if name in dead]) if dead else None
    return [*rows, _statistics("", everything, edges, seen)]


def _quiet(x: Tensor, layer: Any) -> Tensor:
    """Which input channels and taps no position of a batch brings above their threshold: `(C, *K)`; image by image."""
    quiet = torch.ones_like(layer.thresholds, dtype=torch.bool)
    theta = _spread(layer.thresholds, layer.rank)
    for image in x:
        patches = _patches(image.unsqueeze(0), layer.kernel_size, layer._geometry)
        quiet &= ~(patches > theta).any(dim=0).flatten(1, layer.rank).any(dim=1)
    return quiet
