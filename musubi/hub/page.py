"""The page that a published LoRA shows: what it is, on which base, how to use it, how it was made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs

from musubi.core.refs import WeightsRef

if TYPE_CHECKING:
    from musubi.networks.file import LoRAFile

_SHOWN = (
    ("steps", "ss_steps"),
    ("items", "ss_num_train_items"),
    ("rank", "ss_network_dim"),
    ("alpha", "ss_network_alpha"),
    ("optimiser", "ss_optimizer"),
    ("learning rate", "ss_learning_rate"),
    ("schedule", "ss_lr_scheduler"),
    ("noise levels", "ss_timestep_sampling"),
    ("seed", "ss_seed"),
    ("musubi", "musubi.version"),
)


@attrs.frozen(kw_only=True)
class Shown:
    """A sample on the page: its path beside the page, and the prompt it was drawn from."""

    path: str
    prompt: str = ""


def card(
    lora: LoRAFile,
    *,
    repo: str,
    file: str,
    others: Mapping[str, LoRAFile] = MappingProxyType({}),
    samples: Sequence[Shown] = (),
    base_model: str | None = None,
    licence: str | None = None,
) -> str:
    """Return the Markdown of a LoRA's page, with the front matter the Hub reads.

    Args:
        lora: The weights; everything that is told about their making comes from their metadata.
        repo: The repository it will be in, ``owner/name``.
        file: The name of the weights' file there.
        others: What lies beside it by name: the weights of other experts, of a model that has several.
        samples: Pictures or clips to show.
        base_model: The base model's repository; by default what the LoRA was trained on, if that is on the Hub.
        licence: The licence's identifier on the Hub; by default the base model's, if the LoRA carries it.
    """
    base = base_model or base_of(lora.metadata)
    terms = licence or lora.metadata.get("modelspec.license")
    title = lora.metadata.get("modelspec.title") or repo.rpartition("/")[2]
    parts = [
        _front_matter(base, terms, samples),
        f"# {_plain(title)}",
        _introduction(lora, base, terms),
        *_gallery(samples),
        "## Use",
        _usage(repo, (file, *others)),
        "## Training",
        *_settings({file: lora, **others}),
        "`training.toml` beside this page has every setting.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def base_of(metadata: Mapping[str, str]) -> str | None:
    """Return the Hub repository of the base model that a LoRA's metadata names, or None for a local file."""
    return WeightsRef(metadata.get("ss_sd_model_name", "")).repo


def _front_matter(base: str | None, licence: str | None, samples: Sequence[Shown]) -> str:
    video = any(sample.path.endswith(".mp4") for sample in samples)
    lines = [
        *([f"base_model: {json.dumps(base)}", "base_model_relation: adapter"] if base else []),
        *([f"license: {json.dumps(licence)}"] if licence else []),
        "library_name: musubi-trainer",
        f"pipeline_tag: {'text-to-video' if video else 'text-to-image'}",
        "tags:",
        "- lora",
        "- musubi",
        *(["widget:"] if samples else []),
    ]
    for sample in samples:
        lines += [f"- text: {json.dumps(sample.prompt, ensure_ascii=False)}", "  output:"]
        lines += [f"    url: {json.dumps(sample.path, ensure_ascii=False)}"]
    return "\n".join(["---", *lines, "---"])


def _introduction(lora: LoRAFile, base: str | None, licence: str | None) -> str:
    family = lora.metadata.get("modelspec.architecture") or lora.metadata.get("ss_base_model_version")
    kind = f" ({_plain(family)})" if family else ""
    on = f"[{base}](https://huggingface.co/{base})" if base else "a base model that is not named"
    text = f"A LoRA of {len(lora.names)} modules, rank {lora.rank}, for {on}{kind}."
    if licence:
        text += f" The base model's licence, {_plain(licence)}, applies to what is derived from it."
    return text


def _gallery(samples: Sequence[Shown]) -> list[str]:
    lines: list[str] = ["## Samples"] if samples else []
    for sample in samples:
        prompt = _plain(sample.prompt)
        media = f"![{prompt}]({sample.path})"
        if sample.path.endswith(".mp4"):
            media = f'<video src="{escape(sample.path)}" controls loop muted></video>'
        lines.append(f"{media}\n\n*{prompt}*" if prompt else media)
    return lines


def _usage(repo: str, files: Sequence[str]) -> str:
    uses = [f'pipeline = pipeline.with_lora(hub.pull("{repo}@main:{file}"), weight=1.0)\n' for file in files]
    also = "The file also loads" if len(files) == 1 else "The files, each for its expert, also load"
    return (
        "```python\n"
        "from musubi import Pipeline, hub\n"
        "\n"
        "pipeline = Pipeline(model=...)  # the base model named above\n"
        f"{''.join(uses)}"
        "```\n"
        "\n"
        f"{also} in ComfyUI and in diffusers (`load_lora_weights`)."
    )


def _settings(files: Mapping[str, LoRAFile]) -> Iterable[str]:
    """Yield a table of settings for each file, under its name where there are several."""
    for file, lora in files.items():
        if len(files) > 1:
            yield f"### {_plain(file)}"
        yield _table((name, lora.metadata[key]) for name, key in _SHOWN if lora.metadata.get(key))


def _table(rows: Iterable[tuple[str, str]]) -> str:
    lines = [f"| {name} | {_plain(value)} |" for name, value in rows]
    return "\n".join(["| setting | value |", "|---|---|", *lines]) if lines else ""


def _plain(text: str) -> str:
    """Return text that Markdown and HTML show as it is, on one line."""
    joined = " ".join(escape(text, quote=False).split())
    return "".join(f"\\{c}" if c in r"\`*_[]|#!" else c for c in joined)
