"""Where a component is inside a folder that holds a whole pipeline."""

from __future__ import annotations

from pathlib import Path


def weights_path(path: Path, subfolder: str) -> Path:
    """Return the subfolder of a diffusers pipeline folder if ``path`` is one, else ``path`` itself."""
    inside = path / subfolder
    return inside if path.is_dir() and (path / "model_index.json").is_file() and inside.is_dir() else path
