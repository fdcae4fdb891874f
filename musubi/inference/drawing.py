"""The verb ``generate``, the same for a pipeline and for an open session."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, overload

from musubi.core.control import CancelToken
from musubi.core.events import Callback
from musubi.inference.request import Request
from musubi.noise.guidance import Guidance

if TYPE_CHECKING:
    from musubi.inference.media import Image, Video


class Draws(ABC):
    """Something that turns requests into pictures and clips."""

    __slots__ = ()

    @abstractmethod
    def draw(
        self, request: Request, *, on: Iterable[Callback] = (), cancel: CancelToken | None = None
    ) -> Image | Video:
        """Return the picture or clip of a request."""

    @overload
    def generate(
        self,
        prompt: str,
        *,
        frames: Literal[1],
        size: tuple[int, int] | None = None,
        steps: int | None = None,
        guidance: float | Guidance | None = None,
        seed: int | None = 0,
        negative: str | None = None,
        fps: float | None = None,
        fit: Literal["exact", "nearest"] = "exact",
        on: Iterable[Callback] = (),
        cancel: CancelToken | None = None,
    ) -> Image: ...

    @overload
    def generate(
        self,
        prompt: str,
        *,
        frames: int | None = None,
        size: tuple[int, int] | None = None,
        steps: int | None = None,
        guidance: float | Guidance | None = None,
        seed: int | None = 0,
        negative: str | None = None,
        fps: float | None = None,
        fit: Literal["exact", "nearest"] = "exact",
        on: Iterable[Callback] = (),
        cancel: CancelToken | None = None,
    ) -> Image | Video: ...

    def generate(
        self,
        prompt: str,
        *,
        frames: int | None = None,
        size: tuple[int, int] | None = None,
        steps: int | None = None,
        guidance: float | Guidance | None = None,
        seed: int | None = 0,
        negative: str | None = None,
        fps: float | None = None,
        fit: Literal["exact", "nearest"] = "exact",
        on: Iterable[Callback] = (),
        cancel: CancelToken | None = None,
    ) -> Image | Video:
        """Draw a picture (``frames=1``) or a clip; what is None takes the model's own default.

        Args:
            prompt: What to show.
            frames: How many frames.
            size: (width, height) in pixels.
            steps: How many steps the sampler takes.
            guidance: Scale of classifier-free guidance (1.0: no negative pass, half the time), or another rule.
            seed: The same seed gives the same picture, on every device up to rounding; None draws one.
            negative: What not to show.
            fps: Frames a second of a clip.
            fit: Whether to refuse a size or number of frames that the model cannot make, or take the nearest.
            on: Hear ``Progress``.
            cancel: Stop between steps, from any thread.

        Raises:
            ConfigError: The request does not fit the model; every problem is listed.
            WeightsError: A checkpoint or LoRA cannot be read or does not fit.
            SamplingCancelledError: ``cancel`` was set.
        """
        request = Request(
            prompt,
            frames=frames,
            size=size,
            steps=steps,
            guidance=guidance,
            seed=seed,
            negative=negative,
            fps=fps,
            fit=fit,
        )
        return self.draw(request, on=on, cancel=cancel)
