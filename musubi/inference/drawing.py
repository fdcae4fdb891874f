"""The verb ``generate``, the same for a pipeline and for an open session."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, overload

from musubi.core.control import CancelToken
from musubi.core.events import Callback
from musubi.data.control_size import ControlSize
from musubi.inference.request import Request
from musubi.inference.single_frame import SingleFrame
from musubi.noise.guidance import Guidance

if TYPE_CHECKING:
    from musubi.inference.latents import Latents
    from musubi.inference.media import Image, Video
    from musubi.inference.sources import Shown


class Draws(ABC):
    """Something that turns requests into pictures and clips."""

    __slots__ = ()

    @abstractmethod
    def draw(
        self, request: Request, *, on: Iterable[Callback] = (), cancel: CancelToken | None = None
    ) -> Image | Video:
        """Return the picture or clip of a request."""

    @abstractmethod
    def draw_latents(
        self, request: Request, *, on: Iterable[Callback] = (), cancel: CancelToken | None = None
    ) -> Latents:
        """Return the latents of a request, to be decoded later."""

    @abstractmethod
    def decode(self, latents: Latents, *, on: Iterable[Callback] = ()) -> Image | Video:
        """Return the picture or clip of latents."""

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
        image: Shown | None = None,
        last: Shown | None = None,
        control: Shown | Sequence[Shown] = (),
        control_size: ControlSize | None = None,
        video: Shown | None = None,
        strength: float = 0.8,
        trim_tail: int = 0,
        single_frame: SingleFrame | None = None,
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
        image: Shown | None = None,
        last: Shown | None = None,
        control: Shown | Sequence[Shown] = (),
        control_size: ControlSize | None = None,
        video: Shown | None = None,
        strength: float = 0.8,
        trim_tail: int = 0,
        single_frame: SingleFrame | None = None,
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
        image: Shown | None = None,
        last: Shown | None = None,
        control: Shown | Sequence[Shown] = (),
        control_size: ControlSize | None = None,
        video: Shown | None = None,
        strength: float = 0.8,
        trim_tail: int = 0,
        single_frame: SingleFrame | None = None,
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
            fps: Frames a second.
            fit: Whether to refuse a size or number of frames that the model cannot make, or take the nearest.
            image: The first picture of the clip: a path, a Pillow image, or pixels.
            last: The last picture of the clip.
            control: Pictures, or a clip, to follow or to change.
            control_size: The size at which each picture in ``control`` is shown, where a model takes any.
            video: A clip to change, with as many frames or more.
            strength: How much of ``video`` is drawn anew, above 0 and at most 1.
            trim_tail: How many frames at the end of a clip to drop.
            single_frame: Where in time a single picture lies, and those in ``control``.
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
            image=image,
            last=last,
            control=control,
            control_size=control_size,
            video=video,
            strength=strength,
            trim_tail=trim_tail,
            single_frame=single_frame,
        )
        return self.draw(request, on=on, cancel=cancel)
