from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from musubi.core.errors import ConfigError, WeightsError
from musubi.networks.file import LoRAFile
from musubi.networks.weights import AdapterWeights
from musubi.training.merge import merge_loras
from tests.networks.weighted import lora, weights_of
from tests.training.small_checkpoints import LAYOUTS, SPEC, Names, original, read, small, write

KINDS = ("lora", "dora", "loha", "lokr")


def _file(kind: str = "lora", seed: int = 0) -> LoRAFile:
    modules: dict[str, AdapterWeights] = {
        name: lora(out, width, seed=seed) if kind == "lora" else weights_of(kind, out, width)
        for name, (width, out) in SPEC.linears().items()
        if (out % 2 == 0 and width % 2 == 0) or kind != "lokr"
    }
    return LoRAFile(modules=modules, metadata={"modelspec.title": kind}, model=SPEC)


@pytest.mark.parametrize("names", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_is_merged_under_the_bases_own_names(kind: str, names: Names, tmp_path: Path) -> None:
    base, file = small(), _file(kind)
    source = write(base, tmp_path, names)

    path = merge_loras(SPEC, base=source, loras=[(file, 0.5)], to=tmp_path / "out" / "merged.safetensors")

    merged, before = original(read(path, "original" if names == "shards" else names)), original(base)
    for name, tensor in before.items():
        weights = file.get(name.removesuffix(".weight"))
        expected = tensor if weights is None or name.endswith(".bias") else weights.merged(tensor, 0.5)
        torch.testing.assert_close(merged[name], expected, msg=name)
    if names != "shards":
        assert list(load_file(path)) == list(load_file(source))


def test_several_loras_are_merged_with_one_rounding(tmp_path: Path) -> None:
    base, files = small(), [_file(seed=1), _file(seed=2)]
    source = write(base.bfloat16(), tmp_path, "original")

    path = merge_loras(SPEC, base=source, loras=[files[0], (files[1], -0.25)], to=tmp_path / "merged.safetensors")

    before = load_file(source)["patch.weight"]
    deltas = [file.modules["patch"].delta() for file in files]
    merged = load_file(path)["patch.weight"]
    assert merged.dtype == torch.bfloat16
    assert torch.equal(merged, (before.float() + deltas[0] - 0.25 * deltas[1]).bfloat16())


def test_all_floating_point_tensors_change_type_where_one_is_asked_for(tmp_path: Path) -> None:
    source = write(small(), tmp_path, "library")

    path = merge_loras(SPEC, base=source, loras=[_file()], to=tmp_path / "half.safetensors", dtype=torch.float16)

    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}


def test_the_metadata_say_what_it_was_made_of(tmp_path: Path) -> None:
    source = write(small(), tmp_path, "original")

    path = merge_loras(SPEC, base=source, loras=[(_file(), 0.8)], to=tmp_path / "merged.safetensors")

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata == {
        "modelspec.title": "Small",
        "modelspec.merged_from": "Small, lora x 0.8",
        "path": "x.safetensors",
    }


def test_files_of_any_layout_are_bound_on_the_way(tmp_path: Path) -> None:
    source, file = write(small(), tmp_path, "original"), _file()
    parts = LoRAFile.load(file.save(tmp_path / "lora.safetensors", layout="diffusers"))

    first = merge_loras(SPEC, base=source, loras=[parts], to=tmp_path / "a.safetensors")
    second = merge_loras(SPEC, base=source, loras=[file], to=tmp_path / "b.safetensors")

    ours, theirs = load_file(first), load_file(second)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name])


def test_an_adapter_without_a_weight_is_named_before_anything_is_written(tmp_path: Path) -> None:
    source = write(small(), tmp_path, "original")
    deeper = attrs.evolve(_file(), modules={"blocks.7.attn.qk": lora(19, 8)})

    with pytest.raises(WeightsError, match=r"blocks\.7\.attn\.qk: is not in"):
        merge_loras(SPEC, base=source, loras=[deeper], to=tmp_path / "merged.safetensors")

    assert not (tmp_path / "merged.safetensors").exists()


def test_an_adapter_of_another_shape_leaves_no_file(tmp_path: Path) -> None:
    source = write(small(), tmp_path, "original")
    wider = attrs.evolve(_file(), modules={"patch": lora(9, 8)})

    with pytest.raises(WeightsError, match="patch: the adapter is for shape"):
        merge_loras(SPEC, base=source, loras=[wider], to=tmp_path / "merged.safetensors")

    assert not (tmp_path / "merged.safetensors").exists()


def test_nothing_to_merge_and_the_base_as_target_are_refused_together(tmp_path: Path) -> None:
    source = write(small(), tmp_path, "original")

    with pytest.raises(ConfigError) as caught:
        merge_loras(SPEC, base=source, loras=[], to=source)

    assert [issue.path for issue in caught.value.issues] == ["loras", "to"]


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    source = _file().save(tmp_path / "lora.safetensors")

    with pytest.raises(WeightsError, match="has no weight of"):
        merge_loras(SPEC, base=source, loras=[_file()], to=tmp_path / "merged.safetensors")
