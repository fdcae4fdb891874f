"""What Wan's transformers see of pictures and clips: of training items, and of what a generation is asked to show.

Shape suffixes: B batch, C channels, F frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from musubi.architecture import Asked, Size
from musubi.architectures.wan.conditions import Encode, latents_control, latents_image, latents_image_and_end
from musubi.architectures.wan.one_frame import OneFrame, encode_one_frame
from musubi.architectures.wan.sight import Sight
from musubi.batch import Sample
from musubi.core.errors import DataError, Issue
from musubi.data.media.frames import covered, scaled
from musubi.data.media.pictures import picture_batch

Describe = Callable[[Tensor], Tensor]
"""Encodes pictures (B, 3, H, W) in [-1, 1] as CLIP's features (B, L, D): ``partial(encode_images, clip)``."""

Tensors = dict[str, Tensor]


def encode_samples(encode: Encode, sight: Sight, samples: Sequence[Sample]) -> list[Tensors]:
    """Return what is cached of items of equal shapes, which go through the VAE together.

    Raises:
        DataError: Items have no pixels, or lack a condition; all are named.
    """
    video_BCFHW = _videos(samples)
    if sight.one_frame is not None:
        return _one_frames(encode, sight.one_frame, video_BCFHW[:, :, 0], samples)
    made = {"latents": encode(video_BCFHW)}
    frames = video_BCFHW.shape[2]
    if sight.image:
        last = video_BCFHW[:, :, -1] if sight.last and frames > 1 else None
        made["latents_image"] = latents_image(encode, video_BCFHW[:, :, 0], frames=frames, last_BCHW=last)
    if sight.control:
        clips = [_only(sample.name, controls) for sample, controls in _controls(samples)]
        made["latents_control"] = latents_control(encode, _covering(clips, _size(video_BCFHW)), frames=frames)
    return _unstacked(made, len(samples))


def describe_samples(describe: Describe, sight: Sight, samples: Sequence[Sample]) -> list[Tensors]:
    """Return CLIP's ``clip`` of items: of their first frame, and of their last one, too, for models that take it.

    Of a single frame's control pictures the first ones take their places.
    """
    video_BCFHW = _videos(samples)
    first, last = video_BCFHW[:, :, 0], video_BCFHW[:, :, -1]
    if sight.one_frame is not None:
        controls = [pictures for _, pictures in _controls(samples)]
        size = _size(video_BCFHW)
        first = _covering([pictures[0][:1] for pictures in controls], size)[:, :, 0]
        last = _covering([pictures[:2][-1][:1] for pictures in controls], size)[:, :, 0]
    return _unstacked({"clip": _described(describe, sight, first, last)}, len(samples))


def ask_image(encode: Encode, sight: Sight, asked: Asked) -> Tensors:
    """Return ``latents_image`` of a generation, at exactly its size."""
    if "image" not in asked.media:
        return {}
    first = _shown(asked, "image")[:, :, 0]
    if sight.start:
        return {"latents_image": encode(first[:, :, None])[0]}
    if "last" not in asked.media:
        return {"latents_image": latents_image(encode, first, frames=asked.frames)[0]}
    last = _shown(asked, "last")[:, :, 0]
    if sight.last:
        return {"latents_image": latents_image(encode, first, frames=asked.frames, last_BCHW=last)[0]}
    return {"latents_image": latents_image_and_end(encode, first, last, frames=asked.frames)[0]}


def ask_control(encode: Encode, sight: Sight, asked: Asked) -> Tensors:
    """Return ``latents_control`` of a generation, at exactly its size and length.

    Of a single picture ``latents_image``, with the control pictures in their places, and ``f_indices``.
    """
    if sight.one_frame is not None:
        return _asked_one_frame(encode, sight.one_frame, asked)
    if "control" not in asked.media:
        return {}
    return {"latents_control": latents_control(encode, _shown(asked, "control"), frames=asked.frames)[0]}


def ask_video(encode: Encode, asked: Asked) -> Tensors:
    """Return ``latents`` of a clip that is to be changed, at exactly the generation's size."""
    return {"latents": encode(_shown(asked, "video"))[0]} if "video" in asked.media else {}


def ask_clip(describe: Describe, sight: Sight, asked: Asked) -> Tensors:
    """Return CLIP's ``clip`` of a generation's pictures, as they are cropped for it.

    What the model was trained on it sees here, too; the authors' code shows CLIP what the crop cuts away.
    """
    controls = asked.media.get("control", ()) if sight.one_frame is not None else ()
    firsts = asked.media.get("image", ()) or controls[:1]
    if not firsts:
        return {}
    lasts = asked.media.get("last", ()) or controls[1:2] or firsts
    first, last = (_covering([pictures[0][:1]], asked.size)[:, :, 0] for pictures in (firsts, lasts))
    return {"clip": _described(describe, sight, first, last)[0]}


def _described(describe: Describe, sight: Sight, first_BCHW: Tensor, last_BCHW: Tensor) -> Tensor:
    """Return the features (B, L, D), those of the last frame behind the first one's if the model takes both."""
    if not sight.last:
        return describe(first_BCHW)
    both = describe(torch.cat([first_BCHW, last_BCHW]))
    return torch.cat(both.split(len(first_BCHW)), dim=1)


def _one_frames(encode: Encode, layout: OneFrame, target_BCHW: Tensor, samples: Sequence[Sample]) -> list[Tensors]:
    size = (target_BCHW.shape[-1], target_BCHW.shape[-2])
    each = zip(*(_pictures(sample.name, controls, layout) for sample, controls in _controls(samples)), strict=True)
    controls = [_covering(pictures, size)[:, :, 0] for pictures in each]
    made = encode_one_frame(encode, layout, target_BCHW, controls)
    both = {"latents": made.latents, "latents_image": made.latents_image}
    return [{**tensors, "f_indices": made.f_indices} for tensors in _unstacked(both, len(samples))]


def _asked_one_frame(encode: Encode, layout: OneFrame, asked: Asked) -> Tensors:
    pictures = _pictures("control", asked.media.get("control", ()), layout)
    controls = [_covering([picture], asked.size)[:, :, 0] for picture in pictures]
    made = encode_one_frame(encode, layout, torch.zeros(1, 3, *asked.size[::-1]), controls)
    return {"latents_image": made.latents_image[0], "f_indices": made.f_indices}


def _videos(samples: Sequence[Sample]) -> Tensor:
    """Return the pixels of samples of equal shapes in [-1, 1], as (B, C, F, H, W)."""
    return scaled(picture_batch(samples))


def _controls(samples: Sequence[Sample]) -> list[tuple[Sample, Sequence[Tensor]]]:
    """Return the control pictures or clips of every sample."""
    empty = [Issue(sample.name, "has no control") for sample in samples if not sample.controls.get("control")]
    if empty:
        raise DataError("nothing to follow", empty)
    return [(sample, sample.controls["control"]) for sample in samples]


def _only(name: str, controls: Sequence[Tensor]) -> Tensor:
    if len(controls) != 1:
        raise DataError("one control is needed", [Issue(name, f"has {len(controls)}", "keep one clip or picture")])
    return controls[0]


def _pictures(name: str, controls: Sequence[Tensor], layout: OneFrame) -> Sequence[Tensor]:
    """Return the first frames of as many control pictures as there are places for."""
    if len(controls) != len(layout.controls):
        message = f"has {len(controls)} control pictures, {len(layout.controls)} positions are given"
        raise DataError("cannot place the control pictures", [Issue(name, message, "give one position for each")])
    return [control[:1] for control in controls]


def _shown(asked: Asked, role: str) -> Tensor:
    """Return a picture or clip of a role in [-1, 1], as (1, C, F, H, W); several pictures follow one another."""
    return scaled(torch.cat([covered(each, asked.size) for each in asked.media[role]])[None])


def _covering(clips: Sequence[Tensor], size: Size) -> Tensor:
    """Return clips of equal lengths at one size in [-1, 1], as (B, C, F, H, W)."""
    return scaled(torch.stack([covered(clip, size) for clip in clips]))


def _size(video: Tensor) -> Size:
    return video.shape[-1], video.shape[-2]


def _unstacked(tensors: Tensors, count: int) -> list[Tensors]:
    return [{name: tensor[n].clone() for name, tensor in tensors.items()} for n in range(count)]
