from __future__ import annotations

from musubi import LoHa, LoRA
from musubi.networks.dropouts import Dropouts


def test_only_lora_has_activations_of_ranks_to_drop() -> None:
    assert LoRA(dropout=0.1, rank_dropout=0.2, module_dropout=0.3).dropouts == Dropouts(
        hidden=0.1, rank=0.2, module=0.3
    )
    assert LoHa(rank_dropout=0.2, module_dropout=0.3).dropouts == Dropouts(rank=0.2, module=0.3)
