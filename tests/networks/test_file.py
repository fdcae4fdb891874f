from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from musubi.core.errors import ConfigError, WeightsError
from musubi.networks.convert import Precision
from musubi.networks.file import LoRAFile
from musubi.networks.keys import LAYOUTS, LayoutName
from musubi.networks.lora import LoRA
from musubi.testing.toy import Toy
from tests.networks.small import NAMES, Small, make_set, trained
from tests.networks.small_spec import SmallSpec
from tests.networks.weighted import lora, weights_of

SPEC = SmallSpec()


def _file(*, rank: int = 3, alpha: float | None = 2.0, seed: int = 1) -> LoRAFile:
    adapters = trained(make_set(Small(), LoRA(rank=rank, alpha=alpha)), seed=seed)
    return adapters.to_file({"ss_base_model_version": "small", "modelspec.title": "A <b>title</b>"})


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("alpha", [1.5, 0.7, 5.0])
def test_a_file_does_the_same_after_saving_and_loading(layout: LayoutName, alpha: float, tmp_path: Path) -> None:
    file = _file(alpha=alpha).bind(SPEC)

    again = LoRAFile.load(file.save(tmp_path / "lora.safetensors", layout=layout), SPEC)

    assert again.names == NAMES
    assert again.layout == layout
    for name in NAMES:
        torch.testing.assert_close(again.modules[name].delta(), file.modules[name].delta())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["dora", "loha", "lokr", "lokr_whole"])
def test_other_kinds_come_back_bit_by_bit_where_a_layout_has_them(
    kind: str, layout: LayoutName, tmp_path: Path
) -> None:
    # Alpha 4 over rank 1 or 2 is a power of two, which is folded into the matrices without rounding.
    modules = {name: weights_of(kind, 24, 8, alpha=4.0) for name in NAMES}
    file = LoRAFile(modules=modules, model=SPEC)
    path = tmp_path / "lora.safetensors"
    if layout == "diffusers" and kind != "dora":
        with pytest.raises(WeightsError, match="cannot be cut"):
            file.save(path, layout=layout)
        return

    again = LoRAFile.load(file.save(path, layout=layout), SPEC)

    assert again.kinds == file.kinds
    assert again.fingerprint == file.fingerprint
    assert torch.equal(again.modules[NAMES[0]].delta(), modules[NAMES[0]].delta())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_without_dots_are_names_too(layout: LayoutName, tmp_path: Path) -> None:
    file = LoRAFile(modules={"patch": lora(8, 8), "last": lora(8, 8, seed=1)}, model=SPEC)

    again = LoRAFile.load(file.save(tmp_path / "lora.safetensors", layout=layout), SPEC)

    assert again.names == file.names
    for name, weights in file.modules.items():
        torch.testing.assert_close(again.modules[name].delta(), weights.delta())


def test_a_bound_file_is_saved_as_its_model_is_best_exchanged(tmp_path: Path) -> None:
    path = _file().bind(SPEC).save(tmp_path / "lora.safetensors")

    assert SPEC.interchange.layout == LoRAFile.load(path).layout == "peft"


def test_without_a_model_a_file_keeps_its_layout(tmp_path: Path) -> None:
    for layout in LAYOUTS:
        path = _file().bind(SPEC).save(tmp_path / f"{layout}.safetensors", layout=layout)

        again = LoRAFile.load(path).save(tmp_path / "again.safetensors", dtype="as is")

        ours, theirs = load_file(path), load_file(again)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize(("layout", "whose"), [("diffusers", "diffusers' module names"), ("comfy", "dotted")])
def test_names_that_only_a_model_knows_are_asked_for(layout: LayoutName, whose: str, tmp_path: Path) -> None:
    other: LayoutName = "comfy" if layout == "diffusers" else "diffusers"
    file = LoRAFile.load(_file().bind(SPEC).save(tmp_path / "lora.safetensors", layout=other))

    with pytest.raises(WeightsError, match=f"{whose}.*bind"):
        file.save(tmp_path / "other.safetensors", layout=layout)


def test_half_precision_is_rounded_once(tmp_path: Path) -> None:
    file = _file(alpha=0.7).bind(SPEC)

    half = load_file(file.save(tmp_path / "half.safetensors", dtype="bfloat16"))

    whole = load_file(file.save(tmp_path / "whole.safetensors"))
    assert all(torch.equal(tensor, whole[name].bfloat16()) for name, tensor in half.items())


@settings(deadline=None, max_examples=8)
@given(rank=st.integers(1, 5), alpha=st.floats(0.01, 64), dtype=st.sampled_from(["float32", "bfloat16", "float16"]))
def test_a_reference_file_round_trips_byte_by_byte(
    tmp_path_factory: pytest.TempPathFactory, rank: int, alpha: float, dtype: Precision
) -> None:
    folder = tmp_path_factory.mktemp("files")
    first = _file(rank=rank, alpha=alpha).save(folder / "a.safetensors", layout="reference", dtype=dtype)

    second = LoRAFile.load(first).save(folder / "b.safetensors", dtype="as is")

    ours, theirs = load_file(first), load_file(second)
    assert ours.keys() == theirs.keys()
    assert all(t.dtype == theirs[n].dtype and torch.equal(t, theirs[n]) for n, t in ours.items())


def test_a_reference_file_in_half_precision_keeps_its_rounded_alpha(tmp_path: Path) -> None:
    tensors = {name: tensor.bfloat16() for name, tensor in _file(alpha=0.3).tensors("reference").items()}
    save_file(tensors, tmp_path / "a.safetensors")

    LoRAFile.load(tmp_path / "a.safetensors").save(tmp_path / "b.safetensors", dtype="as is")

    again = load_file(tmp_path / "b.safetensors")
    assert all(
        torch.equal(tensor, again[name]) and again[name].dtype == torch.bfloat16 for name, tensor in tensors.items()
    )


def test_the_reference_layout_has_its_names_and_shapes() -> None:
    tensors = _file().tensors("reference")

    assert list(tensors)[:3] == [
        "lora_unet_blocks_0_attn_qk.alpha",
        "lora_unet_blocks_0_attn_qk.lora_down.weight",
        "lora_unet_blocks_0_attn_qk.lora_up.weight",
    ]
    assert [tuple(tensor.shape) for tensor in list(tensors.values())[:3]] == [(), (3, 8), (19, 3)]


def test_a_flat_file_gets_dotted_names_from_the_model_only(tmp_path: Path) -> None:
    flat = LoRAFile.load(_file().save(tmp_path / "lora.safetensors", layout="reference"))

    assert flat.names[0].startswith("blocks_")
    assert flat.get("blocks.1.attn.proj_out") is not None
    with pytest.raises(WeightsError, match="needs the checkpoint's dotted module names"):
        flat.save(tmp_path / "other.safetensors", layout="comfy")
    assert flat.bind(NAMES).names == NAMES
    assert not (tmp_path / "other.safetensors").exists()


def test_unknown_modules_are_listed_and_the_rest_counted() -> None:
    with pytest.raises(WeightsError) as caught:
        _file().bind(["blocks.0.attn.qkv"])

    assert caught.value.issues[0].message == "the model has no such module; did you mean 'blocks.0.attn.qkv'?"


def test_peft_alpha_in_the_metadata_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "peft.safetensors"
    tensors = _file().tensors("peft")
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 6, "transformer.r": 3})})

    file = LoRAFile.load(path)

    assert {weights.strength for weights in file.modules.values()} == {2.0}
    assert "lora_adapter_metadata" not in file.metadata


def test_a_missing_alpha_means_the_rank(tmp_path: Path) -> None:
    tensors = {name: t for name, t in _file().tensors("comfy").items() if not name.endswith(".alpha")}
    save_file(tensors, tmp_path / "lora.safetensors")

    assert {w.strength for w in LoRAFile.load(tmp_path / "lora.safetensors").modules.values()} == {1.0}


def test_metadata_is_kept_without_anyones_folders(tmp_path: Path) -> None:
    metadata = {
        "ss_sd_model_name": "/home/me/models/base.safetensors",
        "ss_vae_name": "C:\\models\\vae.pth",
        "note": "/or",
    }
    path = trained(make_set(Small())).to_file(metadata).save(tmp_path / "lora.safetensors")

    kept = LoRAFile.load(path).metadata

    assert (kept["ss_sd_model_name"], kept["ss_vae_name"], kept["note"]) == ("base.safetensors", "vae.pth", "/or")


def test_the_model_hash_is_of_the_tensors_and_not_of_the_metadata(tmp_path: Path) -> None:
    one = _file().save(tmp_path / "one.safetensors")
    other = LoRAFile(modules=_file().modules, metadata={"note": "x"}).save(tmp_path / "other.safetensors")

    with safe_open(one, framework="pt") as a, safe_open(other, framework="pt") as b:
        hashes = {file.metadata()["sshs_model_hash"] for file in (a, b)}
    content = one.read_bytes()
    data = content[8 + int.from_bytes(content[:8], "little") :]

    assert hashes == {hashlib.sha256(data).hexdigest()}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("lora.pt", b"x", "is not a .safetensors file"),
        ("lora.safetensors", b"not a safetensors file", "lora.safetensors"),
    ],
)
def test_what_is_no_safetensors_file_is_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(WeightsError, match=message):
        LoRAFile.load(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.safetensors"):
        LoRAFile.load(tmp_path / "absent.safetensors")


def test_every_problem_of_a_file_is_listed(tmp_path: Path) -> None:
    tensors = _file().tensors("comfy")
    del tensors["diffusion_model.blocks.0.attn.qk.lora_up.weight"]
    tensors["diffusion_model.blocks.1.attn.qk.lora_up.weight"] = torch.zeros(19, 4)
    tensors["diffusion_model.blocks.1.attn.qk.diff_b"] = torch.zeros(19)
    save_file(tensors, tmp_path / "lora.safetensors")

    with pytest.raises(WeightsError) as caught:
        LoRAFile.load(tmp_path / "lora.safetensors")

    text = str(caught.value)
    assert len(caught.value.issues) == 3
    assert "diff_b" in text
    assert "lacks its up matrix" in text
    assert "do not fit together" in text


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    save_file({}, tmp_path / "lora.safetensors")

    with pytest.raises(WeightsError, match="holds no tensors"):
        LoRAFile.load(tmp_path / "lora.safetensors")


def test_zero_effect_is_seen() -> None:
    assert make_set(Small()).to_file().zero_effect
    assert not _file().zero_effect
    assert _file().scaled(0).zero_effect


def test_faces_are_short_and_escaped(tmp_path: Path) -> None:
    file = LoRAFile.load(_file().save(tmp_path / "lora.safetensors", layout="comfy"), SPEC)

    assert repr(file) == "<LoRAFile of 4 modules, lora, rank 3, layout 'comfy', bound to SmallSpec>"
    assert "A &lt;b&gt;title" in _file()._repr_html_()


def test_a_dora_is_not_scaled() -> None:
    file = LoRAFile(modules={"q": weights_of("dora")})

    with pytest.raises(WeightsError, match=r"q: is a DoRA.*weight where the LoRA is used"):
        file.scaled(0.5)


def test_a_resized_file_tells_its_new_rank() -> None:
    file = _file(rank=3)

    assert file.resized(rank=2).metadata["ss_network_dim"] == "2"
    assert file.resized(rank={r".*qk": 1}).metadata["ss_network_dim"] == "Dynamic"
    assert file.resized(rank=2).metadata["ss_base_model_version"] == "small"


def test_files_of_different_layouts_are_combined_and_averaged_under_one_models_names(tmp_path: Path) -> None:
    first, second = _file(seed=1).bind(SPEC), _file(seed=2).bind(SPEC)
    flat = LoRAFile.load(second.save(tmp_path / "b.safetensors", layout="reference"))

    both = LoRAFile.combine([(first, 0.5), (flat, 1.0)])
    mean = LoRAFile.average([first, flat], decay=0.5)

    for name in NAMES:
        sum_of_deltas = 0.5 * first.modules[name].delta() + second.modules[name].delta()
        torch.testing.assert_close(both.modules[name].delta(), sum_of_deltas)
        middle = (first.modules[name].tensors()["down"] + second.modules[name].tensors()["down"]) / 2
        torch.testing.assert_close(mean.modules[name].tensors()["down"], middle)
    assert both.rank == 6
    assert both.model == mean.model == SPEC


def test_files_are_averaged_by_path_and_keep_the_last_ones_metadata(tmp_path: Path) -> None:
    paths = []
    for step in (100, 200):
        file = LoRAFile(modules=_file().modules, metadata={"ss_steps": str(step)})
        paths.append(file.save(tmp_path / f"{step}.safetensors"))

    assert LoRAFile.average(paths).metadata["ss_steps"] == "200"


def test_nothing_to_combine_or_average_is_refused() -> None:
    with pytest.raises(ConfigError, match="there are no files"):
        LoRAFile.combine([])
    with pytest.raises(ConfigError, match="must be at least 2, got 1"):
        LoRAFile.average([_file()])


def test_an_extracted_file_knows_its_model_and_rank() -> None:
    before = torch.zeros(8, 8)

    file = LoRAFile.extract([("patch", before, torch.eye(8))], rank=2, model=SPEC)

    assert (file.names, file.rank, file.metadata["ss_network_alpha"]) == (("patch",), 2, "2.0")
    assert file.default_layout == "peft"


def test_a_check_needs_a_model() -> None:
    with pytest.raises(ConfigError, match="model: is missing"):
        _file().check()


def test_an_architecture_that_tells_no_modules_leaves_names_as_they_are() -> None:
    bound = _file().bind(Toy())

    assert bound.names == NAMES
    assert bound.model == Toy()
