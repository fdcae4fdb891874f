"""The rules of the house that no linter knows: layers, names, privacy, length."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "musubi"
MODULES = sorted(LIBRARY.rglob("*.py"))
LONGEST_FUNCTION = 72

# Where an architecture may be named: its own folder, the reference's files, the demo and the one registry.
NAMING_ALLOWED = (
    *("architectures/", "compat/", "quickstart/", "__init__.py", "core/kinds.py"),
    *("testing/checkpoints", "testing/tiny_networks", "testing/qwen_image", "testing/flux_kontext"),
)
ARCHITECTURE_NAME = re.compile(
    r"(?i:hunyuan|frame_?pack|kontext|qwen)|(?<![A-Za-z])wan(?![a-z])|(?<![A-Z])Wan(?![a-z])|(?<![A-Za-z])WAN(?![A-Z])"
)


def _place(module: Path) -> str:
    return module.relative_to(LIBRARY).as_posix()


each_module = pytest.mark.parametrize("module", MODULES, ids=_place)
each_nameless_module = pytest.mark.parametrize(
    "module", [module for module in MODULES if not _place(module).startswith(NAMING_ALLOWED)], ids=_place
)


def test_the_import_contracts_hold() -> None:
    command = shutil.which("lint-imports", path=Path(sys.executable).parent) or shutil.which("lint-imports")
    assert command is not None, "lint-imports is missing; install the dev extra"

    result = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr


@each_nameless_module
def test_no_architecture_is_named_outside_its_place(module: Path) -> None:
    named = [
        f"{_place(module)}:{line}: {word}" for line, word in _words(_tree(module)) if ARCHITECTURE_NAME.search(word)
    ]

    assert not named, "\n".join(named)


@each_module
def test_private_modules_are_imported_from_their_own_folder_only(module: Path) -> None:
    folder = _dotted(module.parent)

    strangers = [
        f"{_place(module)}:{line}: {target}"
        for line, target in _imports(_tree(module))
        if (owner := _owner_of_private(target)) is not None and owner != folder
    ]

    assert not strangers, "\n".join(strangers)


@each_module
def test_no_function_is_longer_than_a_screen(module: Path) -> None:
    lengths = {
        f"{_place(module)}:{node.lineno}: {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(_tree(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }

    too_long = {place: length for place, length in lengths.items() if length > LONGEST_FUNCTION}

    assert not too_long


@each_module
def test_the_library_never_prints(module: Path) -> None:
    prints = [
        node.lineno
        for node in ast.walk(_tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]

    assert not prints, f"{_place(module)}: lines {prints}"


@pytest.mark.parametrize(
    "word", ["WanTrainer", "wan", "wan_video", "is_wan", "HunyuanVideo", "frame_pack", "QWEN", "WAN21"]
)
def test_an_architecture_name_is_recognised(word: str) -> None:
    assert ARCHITECTURE_NAME.search(word)


@pytest.mark.parametrize("word", ["want", "unwanted", "swan", "Wanted", "frame packing of tokens", "taiwan", "WANDB"])
def test_an_ordinary_word_is_not_an_architecture_name(word: str) -> None:
    assert not ARCHITECTURE_NAME.search(word)


def _tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"), filename=str(module))


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in names)


def _owner_of_private(target: str) -> str | None:
    """Return the package that owns the first private module in `musubi.a._b.c`, here `musubi.a`."""
    parts = target.split(".")
    if parts[0] != LIBRARY.name:
        return None
    for index, part in enumerate(parts):
        path = ROOT.joinpath(*parts[: index + 1])
        is_module = path.is_dir() or path.with_suffix(".py").is_file()
        if part.startswith("_") and not part.startswith("__") and is_module:
            return ".".join(parts[:index])
    return None


def _words(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield every identifier and string of a module, docstrings aside."""
    docstrings = {id(node) for node in _docstrings(tree)}
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.arg(arg=word) | ast.alias(name=word):
                yield node.lineno, word
            case ast.keyword(arg=str(word)):
                yield node.value.lineno, word
            case ast.FunctionDef(name=word) | ast.AsyncFunctionDef(name=word) | ast.ClassDef(name=word):
                yield node.lineno, word
            case ast.Constant(value=str(word)) if id(node) not in docstrings:
                yield node.lineno, word


def _docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield the strings that stand as statements: docstrings of modules, classes, functions and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value
