"""Layers that hold what a file keeps of a module."""

from __future__ import annotations

from musubi.networks.dora_layer import DoRALayer
from musubi.networks.dropouts import Dropouts
from musubi.networks.groups import Group
from musubi.networks.layers import AdapterLayer
from musubi.networks.loha_layer import LoHaLayer
from musubi.networks.lokr_layer import LoKrLayer
from musubi.networks.lora_layer import LoRALayer
from musubi.networks.weights import AdapterWeights, LoHaWeights, LoKrWeights


def layer_of(weights: AdapterWeights, group: Group, *, dropouts: Dropouts | None = None) -> AdapterLayer:
    """Return a layer over a group with a file's weights; their shape was found to fit."""
    layer = _empty(weights, group, dropouts or Dropouts())
    layer.load(weights)
    return layer


def _empty(weights: AdapterWeights, group: Group, dropouts: Dropouts) -> AdapterLayer:
    width, rows, rank, alpha = group.in_features, group.rows, weights.rank, float(weights.alpha)
    if isinstance(weights, LoHaWeights):
        return LoHaLayer(width, rows, rank=rank, alpha=alpha, dropouts=dropouts)
    if isinstance(weights, LoKrWeights):
        shapes = {n: (t.shape[0], t.shape[1]) for n, t in weights.tensors().items() if n != "alpha"}
        return LoKrLayer(width, rows, shapes=shapes, alpha=alpha, rank=rank, dropouts=dropouts)
    kind = LoRALayer if weights.kind == "lora" else DoRALayer
    return kind(width, rows, rank=rank, alpha=alpha, dropouts=dropouts)
