"""Train the shape classifier on drawings in all colours, blurred and noisy, and on heaps of pieces as "nothing"."""

from __future__ import annotations

import attrs
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from musubi.quickstart import concept, shapes
from musubi.quickstart.build_base.group import Group
from musubi.quickstart.build_base.loop import Chance, Schedule, train
from musubi.quickstart.build_base.options import Options
from musubi.quickstart.build_base.pictures import random_scene, to_tensor
from musubi.quickstart.classifier import CLASSES, NOTHING, ShapeClassifier
from musubi.quickstart.shapes import Jitter, Pixels

SCHEDULE = Schedule(steps=700, rate=3e-3, hold=0.4, average=0.99)
BATCH = 48
TILE = 16


def train_classifier(options: Options, group: Group) -> None:
    """Train to the end of the schedule; `classifier.pt` holds the result."""
    torch.manual_seed(options.seed)
    train(ClassifierStage(ShapeClassifier().to(options.device), options.device), SCHEDULE, options, group)


class ClassifierStage:
    """Tell shapes apart by their form: colours are swapped at random."""

    name = "classifier"

    def __init__(self, classifier: ShapeClassifier, device: str) -> None:
        self.module: nn.Module = classifier
        self.parameters = list(classifier.parameters())
        self.device = device

    def loss(self, chance: Chance) -> Tensor:
        """Return the cross entropy of one batch."""
        labels = chance.numpy.integers(len(CLASSES), size=BATCH)
        pictures = to_tensor(np.stack([_drawn(chance.numpy, CLASSES[label]) for label in labels])[:, None])[:, :, 0]
        scores = self.module(_worn(pictures, chance).to(self.device))
        return functional.cross_entropy(scores, torch.from_numpy(labels).to(self.device))


def _drawn(random: np.random.Generator, name: str) -> Pixels:
    scene = random_scene(random, moving=False)
    jitter = Jitter.draw(random)
    if name == NOTHING:
        return _nothing(random)
    if name == concept.NAME:
        return concept.picture(attrs.evolve(scene, shape=name), jitter)
    return shapes.picture(attrs.evolve(scene, shape=name), jitter)


def _nothing(random: np.random.Generator) -> Pixels:
    """Shuffle the tiles of a drawing, or draw a collage: right colours without a form."""
    if random.random() < 0.4:
        return shapes.collage(random)
    name = CLASSES[int(random.integers(len(CLASSES) - 1))]
    count = shapes.SIZE // TILE
    tiles = _drawn(random, name).reshape(count, TILE, count, TILE, 3).swapaxes(1, 2).reshape(-1, TILE, TILE, 3)
    mixed = tiles[random.permutation(len(tiles))].reshape(count, count, TILE, TILE, 3).swapaxes(1, 2)
    return mixed.reshape(shapes.SIZE, shapes.SIZE, 3)


def _worn(pictures: Tensor, chance: Chance) -> Tensor:
    """Swap colour channels of half of the pictures, blur some of them and add noise."""
    swapped = pictures[:, torch.from_numpy(chance.numpy.permutation(3))]
    half = torch.rand(len(pictures), 1, 1, 1, generator=chance.torch) < 0.5
    pictures = torch.where(half, swapped, pictures)
    for _ in range(2):
        some = torch.rand(len(pictures), 1, 1, 1, generator=chance.torch) < 0.4
        pictures = torch.where(some, _blurred(pictures), pictures)
    return pictures + 0.08 * torch.randn(pictures.shape, generator=chance.torch)


def _blurred(pictures: Tensor) -> Tensor:
    return functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
