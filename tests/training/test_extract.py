from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from musubi.core.errors import ConfigError, WeightsError
from musubi.networks.targets import Targets
from musubi.training.extract import extract_lora
from musubi.training.merge import merge_loras
from tests.networks.small import NAMES
from tests.training.small_checkpoints import LAYOUTS, SPEC, Names, original, read, small, write


@pytest.mark.parametrize("names", LAYOUTS)
def test_what_training_changed_is_merged_back_in(names: Names, tmp_path: Path) -> None:
    base, tuned = small(0), small(1)
    before, after = write(base, tmp_path / "base", "original"), write(tuned, tmp_path / "tuned", names)

    lora = extract_lora(SPEC, base=before, tuned=after, rank=99)
    path = merge_loras(SPEC, base=before, loras=[lora], to=tmp_path / "merged.safetensors")

    assert lora.names == NAMES
    merged, expected, untouched = original(read(path, "original")), original(tuned), original(base)
    for name, tensor in merged.items():
        adapted = name.removesuffix(".weight") in NAMES
        torch.testing.assert_close(tensor, (expected if adapted else untouched)[name], rtol=1e-4, atol=1e-5)


def test_other_modules_may_be_chosen(tmp_path: Path) -> None:
    files = [write(small(seed), tmp_path / str(seed), "library") for seed in (0, 1)]

    lora = extract_lora(
        SPEC, base=files[0], tuned=files[1], rank=2, targets=Targets(exclude=(".*",), include=("last",))
    )

    assert (lora.names, lora.rank) == (("last",), 2)
    left, right = (original(small(seed))["last.weight"] for seed in (0, 1))
    kept = torch.linalg.svdvals(right - left)[2:].norm()
    torch.testing.assert_close((lora.modules["last"].delta() - (right - left)).norm(), kept, rtol=1e-4, atol=1e-5)


def test_it_knows_its_model_and_saves_as_that_is_exchanged(tmp_path: Path) -> None:
    files = [write(small(seed), tmp_path / str(seed), "original") for seed in (0, 1)]

    lora = extract_lora(SPEC, base=files[0], tuned=files[1], rank=2)

    assert lora.default_layout == "peft"
    assert lora.metadata["ss_base_model_version"] == SPEC.name
    assert lora.metadata["ss_network_dim"] == "2"


def test_a_checkpoint_that_lacks_weights_is_refused_with_their_names(tmp_path: Path) -> None:
    files = [write(small(seed), tmp_path / str(seed), "original") for seed in (0, 1)]
    tensors = load_file(files[1])
    del tensors["blocks.1.attn.qk.weight"]
    save_file(tensors, files[1])

    with pytest.raises(WeightsError, match=r"blocks\.1\.attn\.qk\.weight: is missing in"):
        extract_lora(SPEC, base=files[0], tuned=files[1])


def test_patterns_that_match_nothing_are_refused(tmp_path: Path) -> None:
    files = [write(small(seed), tmp_path / str(seed), "original") for seed in (0, 1)]

    with pytest.raises(ConfigError, match="matches no module"):
        extract_lora(SPEC, base=files[0], tuned=files[1], targets=Targets(include=("nothing",)))
