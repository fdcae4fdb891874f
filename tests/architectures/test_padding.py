from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import attrs
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.testing import assert_close

from tests.architectures.families import FAMILIES
from tests.architectures.framepack.golden import calls
from tests.architectures.framepack.golden import predict as predict_framepack
from tests.architectures.hunyuan_video.golden import predict as predict_hunyuan
from tests.architectures.qwen_image import golden as qwen_image
from tests.attention.squares import Squares
from tests.parity.cases import golden, part

Tensors = dict[str, Tensor]
LONG, SHORT = 9, 4


@attrs.frozen(kw_only=True, eq=False)
class Ragged:
    """A transformer that takes texts of several lengths, and its call: ``text`` (B, L, width) of these lengths."""

    family: str
    width: int
    inputs: Callable[[], Tensors]
    predict: Callable[[nn.Module, Tensors, Tensor, tuple[int, ...]], Tensor]

    def model(self, folder: Path) -> nn.Module:
        """Load the golden transformer."""
        family = FAMILIES[self.family]
        return family.load(family.write(family.stem, folder)).requires_grad_(requires_grad=True)

    def text(self, length: int = LONG) -> Tensor:
        """Return two texts, the second one's padding far from zero."""
        return torch.randn(2, length, self.width, generator=torch.Generator().manual_seed(5)) * 3


def _masked(text: Tensor, counts: tuple[int, ...]) -> Tensor:
    return torch.arange(text.shape[1])[None] < torch.tensor(counts)[:, None]


def _hunyuan(model: nn.Module, inputs: Tensors, text: Tensor, counts: tuple[int, ...]) -> Tensor:
    return predict_hunyuan(model, {**inputs, "text_states": text, "text_mask": _masked(text, counts)})


def _framepack(model: nn.Module, inputs: Tensors, text: Tensor, counts: tuple[int, ...]) -> Tensor:
    told = {"encoder_hidden_states": text, "encoder_attention_mask": _masked(text, counts)}
    return predict_framepack(model, {**inputs, **told})


def _qwen(model: nn.Module, inputs: Tensors, text: Tensor, counts: tuple[int, ...]) -> Tensor:
    noisy = inputs["noisy_latents"]
    predicted: Tensor = model(
        qwen_image.pack(noisy),
        encoder_hidden_states=text,
        encoder_hidden_states_mask=_masked(text, counts),
        timestep=inputs["timesteps"],
        img_shapes=[(1, noisy.shape[-2] // 2, noisy.shape[-1] // 2)],
    )
    return qwen_image.unpack(predicted, noisy.shape)


CASES: Mapping[str, Ragged] = {
    "hunyuan_video": Ragged(
        family="hunyuan", width=24, inputs=lambda: part(golden("models_hunyuan")[1], "in."), predict=_hunyuan
    ),
    "framepack": Ragged(
        family="framepack", width=24, inputs=lambda: calls(golden("models_framepack")[1])["batch2"], predict=_framepack
    ),
    "qwen_image": Ragged(
        family="qwen_edit", width=40, inputs=lambda: part(golden("models_qwen_edit")[1], "in."), predict=_qwen
    ),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@each_case
def test_a_sample_gets_what_it_gets_alone_and_so_do_its_gradients(case: Ragged, tmp_path: Path) -> None:
    model, inputs, text = case.model(tmp_path), case.inputs(), case.text()
    own = {name: tensor[1:] for name, tensor in inputs.items() if len(tensor) == 2}

    together = case.predict(model, inputs, text, (LONG, SHORT))[1:]
    expected = _gradients(model, together)
    alone = case.predict(model, own, text[1:, :SHORT], (SHORT,))
    found = _gradients(model, alone)

    assert_close(alone, together, rtol=0, atol=1e-5)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        # A key's bias moves all scores alike, so that its gradient is zero but for rounding.
        assert (found[name] - gradient).abs().max() <= 1e-4 * gradient.abs().max() + 1e-7 * largest, name


@each_case
def test_how_much_padding_there_is_changes_nothing(case: Ragged, tmp_path: Path) -> None:
    model, inputs, text = case.model(tmp_path), case.inputs(), case.text()

    with torch.no_grad():
        expected = case.predict(model, inputs, text, (LONG, SHORT))
        longer = case.predict(model, inputs, pad(text, (0, 0, 0, 7), value=1e3), (LONG, SHORT))
        text[1, SHORT:] = -1e3
        other = case.predict(model, inputs, text, (LONG, SHORT))

    assert torch.equal(longer, expected)
    assert torch.equal(other, expected)


@each_case
def test_no_tensor_of_tokens_by_tokens_is_made(case: Ragged, tmp_path: Path) -> None:
    model, inputs, text = case.model(tmp_path), case.inputs(), case.text(400)

    with Squares(300) as watch:
        case.predict(model, inputs, text, (400, 310)).square().sum().backward()

    assert watch.found == []


def _gradients(model: nn.Module, predicted: Tensor) -> Tensors:
    model.zero_grad()
    predicted.square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
