"""Caches that are built under memory policies for the encoders."""

from __future__ import annotations

import json
import pickle
import weakref
from pathlib import Path
from typing import ClassVar

import attrs
import pytest
import torch
from torch import nn

from musubi import BlockSwap, ConfigError, FP8Scaled, Int8Scaled, TextEncoderMemory, VAETiling, Wan
from musubi.architecture import Prepare, WeightHook
from musubi.architectures.wan.codec import WanCodec
from musubi.cache.building.policies import acting
from musubi.cache.cache import Cache
from musubi.core.errors import CacheError
from musubi.data.dataset import Dataset
from musubi.memory.policy import MemoryPolicy
from musubi.testing.checkpoints import tiny_wan
from tests.cache.counting import contents
from tests.data.files import picture

INT8 = TextEncoderMemory(policies=(Int8Scaled(),))
SWAP = TextEncoderMemory(policies=(BlockSwap(blocks=1),))
TILES = VAETiling(tile=32, overlap=16)
COUNT = 2


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Wan:
    return tiny_wan(tmp_path_factory.mktemp("wan"))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Return two pictures of 64 x 64 pixels with captions."""
    folder = tmp_path / "media"
    folder.mkdir()
    for seed in range(COUNT):
        picture(folder / f"{seed}.png", size=(64, 64), seed=seed, caption=f"picture {seed}")
    return Dataset.from_folder(folder, resolution=64)


@pytest.fixture
def cache(tmp_path: Path, wan: Wan, dataset: Dataset) -> Cache[Wan]:
    """Return a cache that was built without any policy."""
    return Cache(tmp_path / "cache", model=wan).build(dataset, progress=False)


def build(cache: Cache[Wan], dataset: Dataset, *memory: MemoryPolicy) -> dict[str, bytes]:
    """Build under policies and return what is in the folder."""
    return contents(cache.build(dataset, memory=memory, progress=False).path)


def test_policies_that_change_no_number_make_the_same_cache_bit_for_bit(
    tmp_path: Path, cache: Cache[Wan], dataset: Dataset
) -> None:
    plain = contents(cache.path)

    for number, memory in enumerate((SWAP, TextEncoderMemory(on_cpu=True))):
        assert build(Cache(tmp_path / str(number), model=cache.model), dataset, memory) == plain
        assert cache.diff(dataset, memory=[memory]).empty


def test_a_cache_without_policies_says_nothing_of_them(cache: Cache[Wan]) -> None:
    values = json.loads((cache.path / "manifest.json").read_text(encoding="utf-8"))

    assert "memory" not in values
    assert "encoders changed by" not in cache.summary()


@pytest.mark.parametrize(("memory", "stage"), [(INT8, "text"), (TILES, "latents")], ids=["quantised", "in tiles"])
def test_policies_that_change_numbers_encode_their_stage_anew_and_no_other(
    memory: MemoryPolicy, stage: str, cache: Cache[Wan], dataset: Dataset
) -> None:
    before = contents(cache.path)

    assert cache.diff(dataset, memory=[memory]).stages == {stage: COUNT}
    after = build(cache, dataset, memory)

    kept = {name for name in before if name != "manifest.json"}
    assert all(after[name] == before[name] for name in kept), "another build may need what was there"
    made = [after[name] for name in after.keys() - before.keys()]
    assert len(made) == COUNT
    assert not set(made) & set(before.values())


def test_what_is_not_said_is_as_it_was(cache: Cache[Wan], dataset: Dataset) -> None:
    built = build(cache, dataset, INT8, TILES)

    assert cache.diff(dataset).empty
    assert contents(cache.build(dataset, progress=False).path) == built
    assert cache.manifest().memory == {"t5": [Int8Scaled().to_dict()], "vae": [TILES.to_dict()]}
    assert "encoders changed by: t5: int8_scaled; vae: vae_tiling" in cache.summary()


def test_a_new_item_is_encoded_as_the_others_were(cache: Cache[Wan], dataset: Dataset, tmp_path: Path) -> None:
    alone = Cache(tmp_path / "whole", model=cache.model)
    build(cache, dataset, INT8)
    picture(tmp_path / "media" / "new.png", size=(64, 64), seed=9, caption="new")

    cache.build(dataset, progress=False)
    build(alone, dataset, INT8)

    assert set(cache.manifest().outputs) == set(alone.manifest().outputs)


def test_saying_none_at_all_goes_back_to_what_is_still_there(cache: Cache[Wan], dataset: Dataset) -> None:
    plain = contents(cache.path)
    build(cache, dataset, INT8, TILES)

    assert cache.diff(dataset, memory=()).stages == {}
    assert build(cache, dataset)["manifest.json"] == plain["manifest.json"]


def test_a_damaged_manifest_still_says_how_it_was_encoded(cache: Cache[Wan], dataset: Dataset) -> None:
    built = build(cache, dataset, INT8)
    path = cache.path / "manifest.json"
    path.write_bytes(path.read_bytes()[:-40])

    cache.build(dataset, progress=False)

    assert contents(cache.path) == built


def test_policies_of_the_denoiser_are_refused(cache: Cache[Wan], dataset: Dataset) -> None:
    for attempt in (cache.build, cache.diff):
        with pytest.raises(ConfigError) as caught:
            attempt(dataset, memory=[INT8, BlockSwap(blocks=3)])

        (issue,) = caught.value.issues
        assert issue.path == "memory[1]"
        assert "TextEncoderMemory(policies=" in issue.hint


def test_policies_that_do_not_fit_are_refused_before_anything_is_read(cache: Cache[Wan], tmp_path: Path) -> None:
    nothing = Dataset.from_folder(tmp_path / "nowhere", resolution=64)

    with pytest.raises(ConfigError, match=r"memory\[0\]\.policies\[0\]\.blocks"):
        cache.build(nothing, memory=[TextEncoderMemory(policies=(BlockSwap(blocks=24),))])


def test_policies_that_nobody_here_knows_have_to_be_said_again(cache: Cache[Wan], dataset: Dataset) -> None:
    build(cache, dataset, INT8)
    path = cache.path / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8").replace("int8_scaled", "somebodys_own"), encoding="utf-8")

    with pytest.raises(ConfigError, match=r"no memory is called 'somebodys_own'") as caught:
        cache.build(dataset, progress=False)

    assert "memory=()" in caught.value.issues[0].hint
    assert build(cache, dataset, INT8)


def test_a_line_of_policies_that_is_none_is_a_damaged_manifest(cache: Cache[Wan]) -> None:
    path = cache.path / "manifest.json"
    values = json.loads(path.read_text(encoding="utf-8"))

    path.write_text(json.dumps(values | {"memory": ["int8"]}), encoding="utf-8")

    with pytest.raises(CacheError, match="damaged manifest"):
        cache.manifest()


def test_all_processes_of_a_build_can_be_told_of_the_policies(wan: Wan) -> None:
    used = acting([TextEncoderMemory(policies=(Int8Scaled(), BlockSwap(blocks=1))), TILES], None, wan)

    assert pickle.loads(pickle.dumps(used)) == used


@attrs.frozen(kw_only=True)
class WatchedWan(Wan):
    """Wan whose models are watched."""

    kind: ClassVar[str] = "watched_wan"
    held: list[weakref.ref[nn.Module]] = attrs.field(factory=list, eq=False, repr=False)

    def codec(self) -> WanCodec:
        return WatchedCodec(self, self.held)


class WatchedCodec(WanCodec):
    """Refuse to load a model while another is still in memory."""

    def __init__(self, spec: Wan, held: list[weakref.ref[nn.Module]]) -> None:
        super().__init__(spec)
        self._held = held

    def load(
        self,
        component: str,
        *,
        device: torch.device,
        dtype: torch.dtype,
        prepare: Prepare | None = None,
        on_weight: WeightHook | None = None,
    ) -> nn.Module:
        assert not any(held() is not None for held in self._held)
        model = super().load(component, device=device, dtype=dtype, prepare=prepare, on_weight=on_weight)
        self._held.append(weakref.ref(model))
        return model


def test_encoders_under_policies_are_freed_stage_by_stage(tmp_path: Path, wan: Wan, dataset: Dataset) -> None:
    watched = WatchedWan(task=wan.task, weights=wan.weights)
    memory = (TextEncoderMemory(policies=(FP8Scaled(), BlockSwap(blocks=1))), TILES)

    Cache(tmp_path / "cache", model=watched).build(dataset, memory=memory, progress=False)

    assert len(watched.held) == 2
    assert all(held() is None for held in watched.held)
