"""The sizes of a Qwen-Image transformer, from a checkpoint's names and shapes; no tensor is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import attrs

from musubi.architectures.qwen_image.tasks import MARK
from musubi.core.errors import Issue, WeightsError
from musubi.weights.axes import rope_axes
from musubi.weights.naming import PREFIXES, strip

if TYPE_CHECKING:
    from musubi.weights.checkpoint import Checkpoint

AXES = (16, 56, 56)
"""Channels of an attention head that tell image, row and column in every published Qwen-Image."""

_AXES_KEY, _CONFIG_CLASS = "qwen_image.axes_dims_rope", r"QwenImageTransformer2DModel"

_BLOCKS, _LAYERED = "transformer_blocks.", "time_text_embed.addition_t_embedding.weight"
_OTHERS = (
    ("txt_in.text_norm.", "Qwen-Image-2.1"),
    ("double_blocks.", "a FLUX or HunyuanVideo transformer"),
    ("single_transformer_blocks.", "a FLUX or HunyuanVideo transformer in diffusers' layout"),
    ("patch_embedding.", "a Wan transformer"),
)


@attrs.frozen(kw_only=True)
class DitFacts:
    """The sizes of a transformer; the defaults are the published model's."""

    dim: int = 3072
    head_dim: int = 128
    blocks: tuple[int, ...] = tuple(range(60))
    """The numbers of the file's blocks; pruned files lack some."""

    in_channels: int = 64
    out_channels: int = 16
    text_dim: int = 3584
    axes: tuple[int, int, int] = AXES
    zero_time: bool = False
    """Whether the file says that the pictures to start from are told no noise, as in Edit-2511; others may not say."""

    layered: bool = False
    """Whether it is Qwen-Image-Layered, with another rule of places and a further input."""

    @property
    def pruned(self) -> bool:
        """Whether blocks are missing in between, so that the file's numbers are not the model's."""
        return self.blocks != tuple(range(len(self.blocks)))

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """Read the sizes.

        Qwen-Image, -Edit, -Edit-2509 and -2511 have the same names and shapes: which one it is, is the user's word.

        Raises:
            WeightsError: It is another model, which the message names where it is a known one, or is incomplete.
        """
        shapes = {strip(name, PREFIXES): checkpoint.shape(name) for name in checkpoint.names()}
        _expect(checkpoint, shapes)
        blocks = sorted({int(name.split(".")[1]) for name in shapes if name.startswith(_BLOCKS)})
        try:
            dim, in_channels = shapes["img_in.weight"]
            (head_dim,) = shapes[f"{_BLOCKS}{blocks[0]}.attn.norm_q.weight"]
            return cls(
                dim=dim,
                head_dim=head_dim,
                blocks=tuple(blocks),
                in_channels=in_channels,
                out_channels=shapes["proj_out.weight"][0] // 4,
                text_dim=shapes["txt_in.weight"][1],
                axes=rope_axes(checkpoint, head_dim, key=_AXES_KEY, config_class=_CONFIG_CLASS, published=AXES),
                zero_time=MARK in shapes or _told(checkpoint).get("zero_cond_t") is True,
                layered=_LAYERED in shapes,
            )
        except KeyError as error:
            raise _refused(checkpoint, f"lacks {error}: its sizes cannot be told", "download it again") from error


def _told(checkpoint: Checkpoint) -> Mapping[str, object]:
    """Return the ``config.json`` beside the file if it is a transformer's of this family."""
    return checkpoint.config if checkpoint.config.get("_class_name") == _CONFIG_CLASS else {}


def _expect(checkpoint: Checkpoint, shapes: Mapping[str, tuple[int, ...]]) -> None:
    other = next((what for sign, what in _OTHERS if any(name.startswith(sign) for name in shapes)), None)
    if other is None and not any(name.startswith(_BLOCKS) and ".img_mod.1." in name for name in shapes):
        other = "no Qwen-Image transformer"
    if other is not None:
        raise _refused(checkpoint, f"is {other}, not Qwen-Image, -Edit or -Edit-2509", "choose it with dit=...")


def _refused(checkpoint: Checkpoint, message: str, hint: str) -> WeightsError:
    return WeightsError("wrong weights for 'dit'", [Issue(checkpoint.label, message, hint)])
