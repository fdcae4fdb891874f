"""Qwen2.5-VL and its tokenizer: prompts, and pictures beside them, to the states that Qwen-Image is conditioned on.

Shape suffixes: B batch, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLConfig, Qwen2_5_VLModel

from musubi.architecture import CaptionLengths, Prepare, StoredWeight, WeightHook
from musubi.architectures.qwen_image.pixels import Patches, Patching, at_area, patches_of
from musubi.architectures.qwen_image.tasks import Task
from musubi.architectures.qwen_image.templates import IMAGE_PAD, LIMIT, lead, seen, vision_area, worded
from musubi.architectures.qwen_image.vl_facts import VisionLanguageFacts, expect_vision_language, prefixes_of
from musubi.architectures.qwen_image.vl_keys import UNUSED, VISION_LANGUAGE
from musubi.core.errors import DataError, Issue, WeightsError, shown
from musubi.weights import tokenizer as tokenizers
from musubi.weights.checkpoint import open_checkpoint
from musubi.weights.load import load_into
from musubi.weights.stored import stored_weights

_TOGETHER = 16
"""Prompts without pictures that go through the model at once."""


class VisionLanguage(nn.Module):
    """Qwen2.5-VL without the layer that makes words, together with its tokenizer."""

    def __init__(self, encoder: Qwen2_5_VLModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.encoder = encoder
        self.tokenizer = tokenizer
        pad = tokenizer.convert_tokens_to_ids(IMAGE_PAD)
        encoder.config.image_token_id = cast(int, pad)

    @property
    def patching(self) -> Patching:
        """How the vision side cuts pictures."""
        vision: Any = self.encoder.config.vision_config
        return Patching(patch=vision.patch_size, frames=vision.temporal_patch_size, merge=vision.spatial_merge_size)

    @torch.no_grad()
    def states(self, ids_BL: Tensor, mask_BL: Tensor, pictures: Sequence[Patches] = ()) -> Tensor:
        """Return the last states (B, L, D) of tokens, in which pictures are seen where ``IMAGE_PAD`` stands.

        Where pictures are, the model is told which tokens they are: left to itself it takes these for words in a row,
        and every state after a picture is another one.
        """
        # The last norm's: a matrix may be on the host until its block is used.
        device = self.encoder.language_model.norm.weight.device
        ids_BL, mask_BL = ids_BL.to(device), mask_BL.to(device)
        looked_at: dict[str, Tensor] = {}
        if pictures:
            looked_at = {
                "pixel_values": torch.cat([picture.values for picture in pictures]).to(device),
                "image_grid_thw": torch.tensor([[1, picture.rows, picture.columns] for picture in pictures]).to(device),
                "mm_token_type_ids": (ids_BL == self.encoder.config.image_token_id).int(),
            }
        output = self.encoder(input_ids=ids_BL, attention_mask=mask_BL, use_cache=False, **looked_at)
        states: Tensor = output.last_hidden_state
        return states


def encode_texts(
    model: VisionLanguage, task: Task, prompts: Sequence[str], pictures: Sequence[Sequence[Tensor]]
) -> list[Tensor]:
    """Return the states (L, D) of prompts with their pictures, without those of the words before them.

    Prompts with pictures go through the model one by one, others some at a time.

    Args:
        model: The language model.
        task: Which model asks: it decides on the words around a prompt, and how pictures are shown.
        prompts: What to draw, or to change.
        pictures: Of each prompt, uint8 (1, H, W, 3) in any size.

    Raises:
        DataError: A picture is too narrow to be shown, or a prompt holds a token that stands for pictures.
    """
    _refuse_marks(prompts)
    found: dict[int, Tensor] = {}
    bare = [number for number, own in enumerate(pictures) if not own]
    for begin in range(0, len(bare), _TOGETHER):
        numbers = bare[begin : begin + _TOGETHER]
        found |= zip(numbers, _encoded(model, task, [prompts[n] for n in numbers], []), strict=True)
    for number, own in enumerate(pictures):
        if own:
            shown_HWC = [at_area(picture[0], vision_area(task)) for picture in own[: seen(task, len(own))]]
            patches = [patches_of(picture, model.patching) for picture in shown_HWC]
            (found[number],) = _encoded(model, task, [prompts[number]], patches)
    return [found[number] for number in range(len(prompts))]


def _refuse_marks(prompts: Sequence[str]) -> None:
    """Refuse prompts that hold what stands for a part of a picture: the model would look for the picture."""
    if any(IMAGE_PAD in prompt for prompt in prompts):
        problem = Issue("caption", f"holds {IMAGE_PAD}, which stands for pictures", "leave it out of the words")
        raise DataError("cannot be read by the language model", [problem])


def _encoded(model: VisionLanguage, task: Task, prompts: Sequence[str], pictures: Sequence[Patches]) -> list[Tensor]:
    """Return the states of prompts which all have the same pictures."""
    ids_BL, mask_BL = tokens_of(model.tokenizer, task, prompts, [p.tokens(model.patching.merge) for p in pictures])
    first = lead_length(model.tokenizer, task)
    states_BLD = model.states(ids_BL, mask_BL, pictures)
    return [own[first:length] for own, length in zip(states_BLD, mask_BL.sum(1).tolist(), strict=True)]


def tokens_of(
    tokenizer: PreTrainedTokenizerBase, task: Task, prompts: Sequence[str], pictures: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return the tokens (B, L) of prompts, filled up on the right, and a mask of ones where there are any.

    ``pictures`` are the numbers of tokens that stand for each picture, the same for all prompts. Without pictures a
    text is cut after ``LIMIT`` tokens and those before the prompt, its end included, as the authors' pipeline does it.
    """
    texts = [worded(task, prompt, pictures=pictures) for prompt in prompts]
    limit = LIMIT + lead_length(tokenizer, task) if task == "text_to_image" else None
    tokens = tokenizer(texts, padding=True, truncation=limit is not None, max_length=limit, return_tensors="pt")
    return cast(Tensor, tokens.input_ids), cast(Tensor, tokens.attention_mask)


def lead_length(tokenizer: PreTrainedTokenizerBase, task: Task) -> int:
    """Return how many tokens stand before a prompt and its pictures: 34, or 64 in editing, with the published one."""
    return len(tokenizer(lead(task)).input_ids)


def caption_lengths(tokenizer: PreTrainedTokenizerBase, task: Task, captions: Sequence[str]) -> CaptionLengths | None:
    """Count the tokens of captions with the words after them; None where there is no limit, as in editing."""
    if task != "text_to_image":
        return None
    first = lead_length(tokenizer, task)
    ids = [tokenizer(worded(task, caption), verbose=False).input_ids for caption in captions]
    return CaptionLengths(tokens=tuple(len(one) - first for one in ids), limit=LIMIT)


def load_vision_language(
    path: Path,
    tokenizer: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    prepare: Prepare | None = None,
    on_weight: WeightHook | None = None,
) -> VisionLanguage:
    """Load model and tokenizer, frozen; ``prepare`` sees the empty ``VisionLanguage``; raises ``WeightsError``."""
    words = load_tokenizer(tokenizer)

    def prepared(encoder: nn.Module) -> None:
        if prepare is not None:
            prepare(VisionLanguage(cast(Qwen2_5_VLModel, encoder), words))

    encoder = load_qwen25vl(path, device=device, dtype=dtype, prepare=prepared, on_weight=on_weight)
    return VisionLanguage(encoder, words).eval()


def load_qwen25vl(
    path: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    prepare: Prepare | None = None,
    on_weight: WeightHook | None = None,
) -> Qwen2_5_VLModel:
    """Load the model from a file or folder of any layout, frozen; raises ``WeightsError``."""
    with open_checkpoint(path) as checkpoint:
        model = empty_qwen25vl(VisionLanguageFacts.of(checkpoint))
        if prepare is not None:
            prepare(model)
        load_into(
            model,
            checkpoint,
            keys=VISION_LANGUAGE,
            device=device,
            dtype=dtype,
            prefixes=prefixes_of(checkpoint),
            ignore=UNUSED,
            on_weight=on_weight,
        )
    model.eval().requires_grad_(False)
    return model


def stored_vision_language(path: Path) -> Mapping[str, StoredWeight]:
    """Return the matrices that a file holds in 8 bits, by original module; raises ``WeightsError``."""
    with open_checkpoint(path) as checkpoint:
        expect_vision_language(checkpoint)
        return stored_weights(checkpoint, VISION_LANGUAGE, prefixes_of(checkpoint))


def empty_qwen25vl(facts: VisionLanguageFacts) -> Qwen2_5_VLModel:
    """Build transformers' model on the meta device; its tables of waves are real."""
    untold = facts.untold
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": facts.vocabulary,
            "hidden_size": facts.dim,
            "intermediate_size": facts.ffn_dim,
            "num_hidden_layers": facts.num_layers,
            "num_attention_heads": facts.num_heads,
            "num_key_value_heads": facts.num_kv_heads,
            "max_position_embeddings": 128000,
            "rms_norm_eps": 1e-6,
            "bos_token_id": None,
            "eos_token_id": None,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": list(untold.mrope_section),
            },
        },
        vision_config={
            "depth": facts.vision_depth,
            "hidden_size": facts.vision_dim,
            "intermediate_size": facts.vision_ffn_dim,
            "num_heads": untold.vision_heads,
            "out_hidden_size": facts.dim,
            "patch_size": facts.patch,
            "temporal_patch_size": facts.temporal_patch,
            "spatial_merge_size": facts.merge,
            "window_size": untold.window_size,
            "fullatt_block_indexes": list(untold.fullatt_block_indexes),
        },
    )
    with torch.random.fork_rng(devices=[]), init_empty_weights():
        model = Qwen2_5_VLModel(config)
    model.set_attn_implementation("sdpa")
    return model


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer from a folder, or from its ``tokenizer.json``.

    Raises:
        WeightsError: There is no tokenizer, or it knows no pictures.
    """
    tokenizer = tokenizers.load_tokenizer(path, component="tokenizer", pad="<|endoftext|>", eos="<|im_end|>")
    if len(tokenizer(IMAGE_PAD).input_ids) != 1:
        problem = Issue(shown(path), f"has no token {IMAGE_PAD}", "take the one of Qwen/Qwen-Image")
        raise WeightsError("wrong tokenizer", [problem])
    return tokenizer
