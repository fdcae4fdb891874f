from __future__ import annotations

import pytest
import torch

from musubi.core.errors import WeightsError
from musubi.networks.binding import ModelNames, bound, in_parts, swapped_halves
from musubi.networks.weights import AdapterWeights
from tests.networks.small_spec import SmallSpec
from tests.networks.weighted import lora, weights_of

SPEC = SmallSpec()
NAMES = ModelNames(
    originals=tuple(SPEC.linears()), keymap=SPEC.keys, sizes=SPEC.linears(), swapped=SPEC.interchange.swapped
)


def _adapters(*names: str) -> dict[str, AdapterWeights]:
    return {name: lora(NAMES.sizes[name][1], NAMES.sizes[name][0], seed=i) for i, name in enumerate(names)}


def test_flat_and_dotted_originals_mean_the_same() -> None:
    first, second = _adapters("patch", "blocks.1.attn.proj_out").values()

    found = bound({"blocks_1_attn_proj_out": second, "patch": first}, NAMES)

    assert list(found) == ["patch", "blocks.1.attn.proj_out"]
    assert found["blocks.1.attn.proj_out"] is second


def test_names_of_the_library_come_back_under_original_names_bit_by_bit() -> None:
    adapters = _adapters(*NAMES.originals)

    parts = in_parts(adapters, NAMES)
    again = bound(parts, NAMES)

    assert set(parts) >= {"embed", "blocks.0.to_q", "blocks.0.to_k", "blocks.0.out", "head"}
    assert again.keys() == adapters.keys()
    for name, weights in adapters.items():
        assert all(torch.equal(tensor, again[name].tensors()[role]) for role, tensor in weights.tensors().items()), name


def test_a_part_alone_changes_its_own_rows_only() -> None:
    part = lora(11, 8)

    whole = bound({"blocks.0.to_k": part}, NAMES)["blocks.0.attn.qk"]

    torch.testing.assert_close(whole.delta(), torch.cat([torch.zeros(8, 8), part.delta()]))


def test_a_part_alone_needs_the_size_of_the_whole() -> None:
    sizeless = ModelNames(originals=NAMES.originals, keymap=NAMES.keymap)

    with pytest.raises(WeightsError, match=r"blocks\.0\.attn\.qk: the file has 1 of its 2 parts"):
        bound({"blocks.0.to_q": lora(8, 8)}, sizeless)


def test_a_part_alone_takes_its_place_among_rows_that_are_known() -> None:
    names = ModelNames(originals=NAMES.originals, keymap=NAMES.keymap, part_rows={"blocks.0.attn.qk": (3, 11)})

    whole = bound({"blocks.0.to_k": lora(11, 8)}, names)["blocks.0.attn.qk"]

    assert whole.shape == (14, 8)
    assert not whole.delta()[:3].any()


def test_halves_that_the_library_exchanges_are_exchanged_in_its_names_only() -> None:
    weights = _adapters("last")["last"]

    there = in_parts({"last": weights}, NAMES)["head"]

    torch.testing.assert_close(there.delta(), torch.cat(weights.delta().chunk(2)[::-1]))
    assert bound({"last": weights}, NAMES)["last"] is weights


def test_exchanging_halves_twice_changes_nothing() -> None:
    weights = weights_of("dora")

    again = swapped_halves(swapped_halves(weights))

    assert all(torch.equal(tensor, again.tensors()[role]) for role, tensor in weights.tensors().items())


@pytest.mark.parametrize(
    "names",
    [("blocks.0.attn.qk", "blocks_0_attn_qk"), ("blocks.0.attn.qk", "blocks.0.to_q"), ("embed", "patch")],
)
def test_two_adapters_for_one_module_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(WeightsError, match="is a second adapter for"):
        bound({name: lora() for name in names}, NAMES)


def test_strangers_are_named_with_the_nearest_and_counted() -> None:
    with pytest.raises(WeightsError) as caught:
        bound({f"blocks.{i}.attn.qkv": lora() for i in range(12)}, NAMES)

    assert caught.value.issues[0].message == "the model has no such module; did you mean 'blocks.0.attn.qk'?"
    assert caught.value.issues[-1].message == "12 of the file's 12 modules are unknown"


def test_what_cannot_be_cut_is_named() -> None:
    with pytest.raises(WeightsError, match=r"blocks\.0\.attn\.qk: a lokr cannot be cut"):
        in_parts({"blocks.0.attn.qk": weights_of("lokr", 20, 8)}, NAMES)
