from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import attrs
import numpy as np
import torch

from musubi.core.control import CancelToken
from musubi.core.events import Callback, Media
from musubi.inference.drawing import Draws
from musubi.inference.latents import Latents
from musubi.inference.media import Image, Video
from musubi.inference.request import Request
from musubi.inference.single_frame import SingleFrame


@attrs.define
class Sketch(Draws):
    """Draws black and remembers what it was asked."""

    requests: list[Request] = attrs.field(factory=list)

    def draw(
        self, request: Request, *, on: Iterable[Callback] = (), cancel: CancelToken | None = None
    ) -> Image | Video:
        self.requests.append(request)
        return self.decode(self.draw_latents(request))

    def draw_latents(
        self, request: Request, *, on: Iterable[Callback] = (), cancel: CancelToken | None = None
    ) -> Latents:
        return Latents(tensor=torch.zeros(4, 1, 2, 2))

    def decode(self, latents: Latents, *, on: Iterable[Callback] = ()) -> Image | Video:
        return Image(np.zeros((16, 16, 3)))


def test_the_arguments_of_generate_are_a_request() -> None:
    sketch = Sketch()

    sketch.generate(
        "a fox", size=(64, 48), frames=9, steps=3, guidance=2.0, seed=7, negative="grey", fps=8, fit="nearest"
    )

    assert sketch.requests == [
        Request("a fox", size=(64, 48), frames=9, steps=3, guidance=2.0, seed=7, negative="grey", fps=8, fit="nearest")
    ]


def test_what_the_model_is_to_look_at_is_in_the_request() -> None:
    sketch, places = Sketch(), SingleFrame(target=1, controls=(0,))

    sketch.generate("a fox", image="a.png", last=Path("b.png"), video="c.mp4", strength=0.5, trim_tail=3)
    sketch.generate("a fox", control=["d.png"], single_frame=places)

    assert sketch.requests == [
        Request("a fox", image="a.png", last="b.png", video="c.mp4", strength=0.5, trim_tail=3),
        Request("a fox", control="d.png", single_frame=places),
    ]


def test_a_result_can_be_saved_whatever_it_is(tmp_path: Path) -> None:
    result = Sketch().generate("a fox")
    kept: Media = result

    assert kept.save(tmp_path / f"fox{result.suffix}").exists()


def test_a_single_frame_is_known_to_be_a_picture() -> None:
    image: Image = Sketch().generate("a fox", frames=1)

    assert image.frame.shape == (16, 16, 3)
