"""From a prompt to a picture or a clip: the pipeline as a value."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Self

import attrs
from typing_extensions import TypeVar

from musubi.architecture import Architecture
from musubi.core.control import CancelToken
from musubi.core.errors import ConfigError, Issue
from musubi.core.events import Callback
from musubi.core.fields import field, one_of, optional
from musubi.core.spec import Spec
from musubi.inference.drawing import Draws
from musubi.inference.fitting import fit_context
from musubi.inference.loras import LoRAUse
from musubi.inference.request import Request
from musubi.memory.policy import MemoryPolicy, arrange
from musubi.noise.samplers import Sampler

if TYPE_CHECKING:
    from musubi.inference.latents import Latents
    from musubi.inference.media import Image, Video
    from musubi.inference.session import Session
    from musubi.memory.hardware import Hardware
    from musubi.memory.plan import Plan
    from musubi.networks.file import LoRAFile

A_co = TypeVar("A_co", bound=Architecture, covariant=True, default=Architecture)


@attrs.frozen(kw_only=True)
class Pipeline(Spec, Draws, Generic[A_co]):
    """Generate with a model, LoRAs, memory policies and a sampler; None takes the model's own.

    ``dtype`` is what the network computes in: None is bfloat16 on an accelerator and float32 on a CPU.

    Example:
        >>> from musubi import Wan, WanPipeline
        >>> pipeline = WanPipeline(model=Wan.t2v_14b()).with_lora("clay_style.safetensors", weight=0.8)
        >>> pipeline.loras[0].weight
        0.8
    """

    model: A_co
    loras: tuple[LoRAUse, ...] = ()
    memory: tuple[MemoryPolicy, ...] = ()
    sampler: Sampler | None = None
    dtype: Literal["bfloat16", "float16", "float32"] | None = field(
        default=None, check=optional(one_of("bfloat16", "float16", "float32"))
    )
    device: str | None = None

    def problems(self) -> Iterable[Issue]:
        """Yield what is wrong with the memory policies and the LoRAs for this model."""
        for index, use in enumerate(self.loras):
            yield from (issue.under(f"loras[{index}]") for issue in use.expert_issues(self.model.experts))
        try:
            arrange(self.memory, fit_context(self.model, self.memory))
        except ConfigError as error:
            yield from error.issues

    def with_lora(
        self, lora: LoRAFile | Path | str, weight: float = 1.0, *, merge: bool = False, expert: str | None = None
    ) -> Self:
        """Return a pipeline with one more LoRA, a file or ``result.lora``.

        Attached, a LoRA leaves the base weights as they are; with ``merge`` it is added to them while loading.
        ``expert`` is the one that it is for where a model has several, e.g. ``high``: None is what the file says, and
        all of them if it says nothing.
        """
        return self.replace(loras=(*self.loras, LoRAUse.of(lora, weight=weight, merge=merge, expert=expert)))

    def with_memory(self, *policies: MemoryPolicy) -> Self:
        """Return a pipeline with these memory policies instead of its present ones."""
        return self.replace(memory=policies)

    def with_sampler(self, sampler: Sampler) -> Self:
        """Return a pipeline that integrates in another way."""
        return self.replace(sampler=sampler)

    def draw(
        self, request: Request, *, on: Iterable[Callback] = (), cancel: CancelToken | None = None
    ) -> Image | Video:
        """Return the picture or clip of a request, loading and freeing one model after the other."""
        from musubi.inference.session import Session

        request.job(self.model)
        with Session(self, keep=False) as session:
            return session.draw(request, on=on, cancel=cancel)

    def draw_latents(
        self, request: Request, *, on: Iterable[Callback] = (), cancel: CancelToken | None = None
    ) -> Latents:
        """Return the latents of a request, to be saved and decoded later, with another pipeline of the model as well.

        Example:
            >>> pipeline.draw_latents(request).save("fox.safetensors")  # doctest: +SKIP
            >>> pipeline.decode(Latents.load("fox.safetensors")).save("fox.mp4")  # doctest: +SKIP
        """
        from musubi.inference.session import Session

        request.job(self.model)
        with Session(self, keep=False) as session:
            return session.draw_latents(request, on=on, cancel=cancel)

    def decode(self, latents: Latents, *, on: Iterable[Callback] = ()) -> Image | Video:
        """Return the picture or clip of latents; nothing but the decoder is loaded.

        Raises:
            ConfigError: The latents are another model's.
            WeightsError: The decoder cannot be read.
        """
        from musubi.inference.session import Session

        with Session(self.replace(loras=()), keep=False) as session:
            return session.decode(latents, on=on)

    def open(self, *, prompts: Iterable[str] = ()) -> Session[A_co]:
        """Return a context manager whose ``generate`` keeps the models loaded between calls.

        The text encoders are loaded for prompts not met before and freed again; those in ``prompts`` are encoded
        together with the first, so that the encoders need not be loaded beside the denoiser.

        Example:
            >>> with pipeline.open() as session:  # doctest: +SKIP
            ...     pictures = [session.generate("a clay fox", frames=1, seed=seed) for seed in range(4)]

        Raises:
            WeightsError: A LoRA file cannot be read.
        """
        from musubi.inference.session import Session

        return Session(self, keep=True, prompts=prompts)

    def plan(
        self,
        *,
        size: tuple[int, int] | None = None,
        frames: int | None = None,
        hardware: Hardware | str | None = None,
    ) -> Plan:
        """Say what generating will need, from the checkpoint's header alone; loads no weights.

        ``hardware`` is what to plan for, as in ``Trainer.plan``.

        Raises:
            ConfigError: The model cannot make this size or number of frames, there is no such hardware, the policies do
                not fit, or nothing fits a budget.
            WeightsError: The checkpoint cannot be read or does not fit the model.
        """
        from musubi.inference.planning import plan

        return plan(self, Request("", size=size, frames=frames).job(self.model, planned=True), hardware=hardware)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values.

        Raises:
            ConfigError: A LoRA lies in memory only.
        """
        for use in self.loras:
            use.to_dict()
        return super().to_dict()
