from __future__ import annotations

import pytest
import torch

from musubi.core.errors import WeightsError
from musubi.networks.file import LoRAFile
from musubi.networks.merge import Merge
from musubi.networks.weights import LoRAWeights


def _file(name: str = "blocks.0.q", *, alpha: float = 1.0, seed: int = 0) -> LoRAFile:
    generator = torch.Generator().manual_seed(seed)
    down, up = torch.randn(2, 5, generator=generator), torch.randn(4, 2, generator=generator)
    return LoRAFile(modules={name: LoRAWeights(down, up, torch.tensor(alpha))})


def test_the_weight_grows_by_the_scaled_delta() -> None:
    file, base = _file(), torch.ones(4, 5)

    merged = file.merge_hook(0.5)("blocks.0.q.weight", base)

    torch.testing.assert_close(merged, base + 0.5 * file.modules["blocks.0.q"].delta())
    assert torch.equal(base, torch.ones(4, 5))


@pytest.mark.parametrize("name", ["blocks.0.q.bias", "blocks.0.k.weight", "blocks.0.q"])
def test_other_tensors_come_back_as_they_are(name: str) -> None:
    base = torch.ones(4, 5)

    assert _file().merge_hook()(name, base) is base


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_the_precision_stays_and_is_rounded_to_once(dtype: torch.dtype) -> None:
    base = torch.randn(4, 5, generator=torch.Generator().manual_seed(9)).to(dtype)
    files = ((_file(seed=1), 0.3), (_file(seed=2), -0.2))

    merged = Merge(files)("blocks.0.q.weight", base)

    exact = base.float() + sum(weight * file.modules["blocks.0.q"].delta() for file, weight in files)
    assert merged.dtype == dtype
    assert torch.equal(merged.float(), exact.to(dtype).float())


def test_flat_names_find_their_weight() -> None:
    merge = _file("blocks_0_q").merge_hook()
    merge("blocks.0.q.weight", torch.zeros(4, 5))

    merge.check()


def test_what_was_not_merged_is_named() -> None:
    merge = _file().merge_hook()
    merge("blocks.1.q.weight", torch.zeros(4, 5))

    with pytest.raises(WeightsError, match=r"blocks\.0\.q"):
        merge.check()


def test_a_wrong_shape_is_named() -> None:
    with pytest.raises(WeightsError, match=r"\(4, 5\), the weight has \(4, 6\)"):
        _file().merge_hook()("blocks.0.q.weight", torch.zeros(4, 6))
