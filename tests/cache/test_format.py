from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musubi.batch import batch_key
from musubi.cache import format as files
from musubi.core.errors import CacheError

names = st.sampled_from(
    ["latents", "latents_image", "latents_control_0", "clip", "f_indices", "varlen_t5", "llm_mask", "t5_vec"]
)
dtypes = st.sampled_from(
    [
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.int64,
        torch.int32,
        torch.bool,
        torch.uint8,
    ]
)


@settings(deadline=None)
@given(name=names, dtype=dtypes, shape=st.lists(st.integers(1, 4), min_size=3, max_size=4))
def test_a_content_name_survives_its_key(name: str, dtype: torch.dtype, shape: list[int]) -> None:
    assert files.content_name(files.tensor_key(name, torch.zeros(shape).to(dtype))) == name


def test_tensors_and_metadata_survive_a_file(tmp_path: Path) -> None:
    tensors = {
        "latents": torch.randn(16, 2, 4, 6).bfloat16(),
        "varlen_t5": torch.randn(3, 8),
        "a_mask": torch.ones(4).bool(),
    }
    path = tmp_path / "a.safetensors"

    path.write_bytes(files.dump(tensors, {"caption1": "ein Größe 画像", "width": "6"}))

    loaded, facts = files.load(path), files.read_facts(path)
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    assert facts is not None
    assert {**facts, files.DATA: ""} == {"caption1": "ein Größe 画像", "width": "6", files.DATA: ""}


def test_equal_content_gives_equal_bytes_in_whatever_order_it_is_given() -> None:
    tensors, facts = {"b": torch.ones(3), "a": torch.zeros(2, 2).bfloat16()}, {letter: letter for letter in "gfedcba"}

    data = files.dump(tensors, facts)

    assert data == files.dump(dict(sorted(tensors.items())), dict(sorted(facts.items())))
    header = data[8 : data.index(b"}}") + 2].decode()
    assert list(json.loads(header)) == ["__metadata__", "a_bfloat16", "b_float32"]
    assert list(json.loads(header)["__metadata__"]) == [*"abcdefg", files.DATA]


def test_views_that_share_memory_are_stored_each_on_its_own(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)

    (tmp_path / "a.safetensors").write_bytes(files.dump({"a": base, "b": base[:, 1:3].T}, {}))

    assert torch.equal(files.load(tmp_path / "a.safetensors")["b"], base[:, 1:3].T)


def test_examining_a_whole_file_tells_what_a_manifest_says_of_it(tmp_path: Path) -> None:
    tensors = {"latents": torch.randn(16, 2, 4, 6), "varlen_t5": torch.randn(0, 8), "clip": torch.randn(3).half()}
    data = files.dump(tensors, {"a": "b"})
    (tmp_path / "a.safetensors").write_bytes(data)

    found = files.examine(tmp_path / "a.safetensors")

    assert found is not None
    assert (found.bytes, found.sha256, found.key) == (len(data), files.digest(data), batch_key(tensors))
    assert found.facts["a"] == "b"


@settings(deadline=None, max_examples=30)
@given(cut=st.floats(0, 0.999))
def test_a_truncated_file_is_not_whole(tmp_path_factory: pytest.TempPathFactory, cut: float) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.safetensors"
    data = files.dump({"latents": torch.ones(4, 4)}, {"a": "b"})

    path.write_bytes(data[: int(len(data) * cut)])

    assert files.examine(path) is None


def test_a_file_whose_end_never_reached_the_disk_is_not_whole(tmp_path: Path) -> None:
    data = files.dump({"latents": torch.ones(1000)}, {files.FINGERPRINT: "f"})
    path = tmp_path / "a.safetensors"

    path.write_bytes(data[:-100] + b"\0" * 100)

    assert files.examine(path) is None
    assert (files.read_facts(path) or {})[files.FINGERPRINT] == "f"


@pytest.mark.parametrize("data", [b"", b"x" * 100, struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 2**62) + b"{}"])
def test_any_other_file_has_no_header_and_is_an_error_that_names_it(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)

    assert files.read_facts(path) is None
    assert files.examine(path) is None
    with pytest.raises(CacheError, match=r"a\.safetensors"):
        files.load(path)


def test_a_file_of_another_checksum_is_an_error_that_says_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(files.dump({"a": torch.zeros(1)}, {}))

    with pytest.raises(CacheError, match=r"not what was written \(hint: delete this file and build"):
        files.load(path, sha256="0" * 64)


def test_a_name_too_long_for_a_file_system_is_shortened_and_stays_unique() -> None:
    first, second = (files.text_label("画" * 200 + end, suffix="toy") for end in "ab")

    assert first != second
    assert len(first.encode()) < 200


def test_a_stem_that_is_no_text_and_too_long_still_makes_a_label() -> None:
    odd = "\udcff" * 200

    assert files.text_label("a\udcff", suffix="toy") == "a\udcff_toy_te"
    assert files.text_label(f"{odd}a", suffix="toy") != files.text_label(f"{odd}b", suffix="toy")
    assert len(files.text_label(odd, suffix="toy").encode(errors="surrogateescape")) < 255
