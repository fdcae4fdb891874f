"""Name the shape in a picture: the score of what the base draws, and of what a LoRA taught it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from musubi.quickstart import concept
from musubi.quickstart.shapes import SHAPES, Pixels

NOTHING = "nothing"
CLASSES = (*SHAPES, concept.NAME, NOTHING)


class ShapeClassifier(nn.Sequential):
    """Map pictures (batch, 3, 64, 64) from -1 to 1 to scores (batch, len(CLASSES))."""

    def __init__(self) -> None:
        super().__init__(
            *_halving(3, 16),
            *_halving(16, 32),
            *_halving(32, 48),
            *_halving(48, 64),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(64, len(CLASSES)),
        )


def load_classifier(path: Path | None = None) -> ShapeClassifier:
    """Load the embedded classifier, or the one at `path`, in float32."""
    classifier = ShapeClassifier()
    weights = load_file(path or Path(__file__).parent / "base" / "classifier.safetensors")
    classifier.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return classifier.eval().requires_grad_(False)


@torch.no_grad()
def probabilities(classifier: ShapeClassifier, pixels_BHWC: Pixels) -> Tensor:
    """Return the probability of each class for each picture, as (pictures, len(CLASSES))."""
    pictures = torch.from_numpy(pixels_BHWC.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
    result: Tensor = classifier(pictures).softmax(dim=1)
    return result


def named(classifier: ShapeClassifier, pixels_BHWC: Pixels) -> list[str]:
    """Name what each picture shows most probably."""
    return [CLASSES[int(index)] for index in probabilities(classifier, pixels_BHWC).argmax(dim=1)]


def share_recognised(classifier: ShapeClassifier, pixels_BHWC: Pixels, expected: Sequence[str]) -> float:
    """Return the share of pictures that show what is expected of them, from 0 to 1."""
    names = named(classifier, pixels_BHWC)
    return sum(name == wanted for name, wanted in zip(names, expected, strict=True)) / len(names)


def _halving(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
    ]
