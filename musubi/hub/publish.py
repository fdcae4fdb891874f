"""Publishing: first a folder with exactly what will be online, then one upload of it."""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from musubi.core import atomic
from musubi.core.errors import ConfigError, DataError, Issue, WeightsError, shown
from musubi.hub.page import Shown, card

if TYPE_CHECKING:
    from musubi.networks.file import LoRAFile
    from musubi.training.result import TrainResult

logger = logging.getLogger(__name__)

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_MEDIA = frozenset((".png", ".jpg", ".jpeg", ".webp", ".mp4"))


class Api(Protocol):
    """The part of ``huggingface_hub.HfApi`` that publishing needs."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> object:
        """Make a repository unless it is there."""
        ...

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> object:
        """Upload a folder as one commit."""
        ...


def push(
    what: TrainResult | LoRAFile | Path | str,
    repo: str,
    *,
    private: bool = True,
    message: str = "Add LoRA",
    base_model: str | None = None,
    licence: str | None = None,
    samples: Sequence[Path | str] | None = None,
    api: Api | None = None,
) -> str:
    """Upload a LoRA with its page, samples and settings in one commit and return the page's address.

    The access token is the one of ``hf auth login``; it is neither read nor logged here.

    Args:
        what: A run's result, a LoRA, or the path of one.
        repo: ``owner/name``; made if it does not exist.
        private: Whether only you can see a newly made repository.
        message: The commit's title.
        base_model: See ``card``.
        licence: See ``card``.
        samples: Pictures or clips to show; by default the result's last ones.
        api: Stands in for ``huggingface_hub.HfApi()``.

    Raises:
        ConfigError: The repository's name is not acceptable.
        WeightsError: The LoRA cannot be read, or the Hub refused it.

    Example:
        >>> hub.push(result, repo="me/clay-style", private=True)  # doctest: +SKIP
        'https://huggingface.co/me/clay-style'
    """
    check_repo(repo)
    with tempfile.TemporaryDirectory(prefix="musubi-hub-") as folder:
        stage(what, folder, repo=repo, base_model=base_model, licence=licence, samples=samples)
        _upload(Path(folder), repo, private=private, message=message, api=api or _hub())
    return f"https://huggingface.co/{repo}"


def stage(
    what: TrainResult | LoRAFile | Path | str,
    folder: Path | str,
    *,
    repo: str = "me/lora",
    base_model: str | None = None,
    licence: str | None = None,
    samples: Sequence[Path | str] | None = None,
) -> Path:
    """Write what ``push`` would upload to a folder, without the network, and return the folder.

    It holds the weights (``.safetensors``, one file for each expert that has its own), ``README.md``,
    ``training.toml`` and ``samples/``.
    """
    from musubi.networks.file import LoRAFile
    from musubi.training.result import TrainResult

    check_repo(repo)
    target = Path(folder)
    chosen = samples if samples is not None else what.samples[-8:] if isinstance(what, TrainResult) else ()
    if isinstance(what, TrainResult):
        loras = what.loras
    else:
        loras = (what if isinstance(what, LoRAFile) else LoRAFile.load(what),)
    files = {_file_of(lora, repo): lora for lora in loras}
    for name, each in files.items():
        each.save(target / name)
    (file, lora), *others = files.items()
    pictures = _copy([Path(sample) for sample in chosen], target)
    page = card(
        lora, repo=repo, file=file, others=dict(others), samples=pictures, base_model=base_model, licence=licence
    )
    atomic.write_text(target / "README.md", page)
    atomic.write_text(target / "training.toml", _settings(lora))
    return target


def check_repo(repo: str) -> None:
    """Make sure that a repository is named as the Hub names them; raises ``ConfigError``."""
    if not _REPO.fullmatch(repo):
        raise ConfigError("hub", [Issue("repo", f"must be owner/name, got {repo!r}", "e.g. me/clay-style")])


def _file_of(lora: LoRAFile, repo: str) -> str:
    return f"{_file_name(lora.metadata.get('ss_output_name', '') or repo.rpartition('/')[2])}.safetensors"


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "lora"


def _copy(samples: Sequence[Path], target: Path) -> list[Shown]:
    """Copy samples under unique names and return them with the prompts that their files carry."""
    bad = [sample for sample in samples if sample.suffix.lower() not in _MEDIA or not sample.is_file()]
    if bad:
        raise DataError("samples", [Issue(shown(path), "is no picture or clip") for path in bad])
    copied: list[Shown] = []
    for number, sample in enumerate(samples):
        name = f"samples/{number:02d}_{_file_name(sample.stem)}{sample.suffix.lower()}"
        (target / "samples").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sample, target / name)
        copied.append(Shown(path=name, prompt=_prompt(sample)))
    return copied


def _prompt(sample: Path) -> str:
    """Return the prompt that a picture or clip of ours carries, or nothing."""
    if sample.suffix.lower() == ".mp4":
        import av

        with av.open(sample) as clip:
            return clip.metadata.get("prompt", "")
    from PIL import Image

    with Image.open(sample) as image:
        return str(image.info.get("prompt", ""))


def _settings(lora: LoRAFile) -> str:
    """Return the configuration inside a LoRA's metadata as TOML, or nothing for a LoRA from elsewhere."""
    import tomli_w

    try:
        values: Any = json.loads(lora.metadata.get("musubi.config", "{}"))
    except json.JSONDecodeError:
        logger.warning("the LoRA's configuration is not readable and is left out")
        values = {}
    return tomli_w.dumps(values if isinstance(values, dict) else {})


def _hub() -> Api:
    from huggingface_hub import HfApi

    return HfApi()


def _upload(folder: Path, repo: str, *, private: bool, message: str, api: Api) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
    except (HfHubHTTPError, OSError, ValueError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        problem = type(error).__name__ + (f" (HTTP {status})" if status else "")
        hint = "check the connection, and log in with `hf auth login` and a token that may write there"
        raise WeightsError("upload failed", [Issue(repo, problem, hint)]) from None
