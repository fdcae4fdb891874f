"""What the README, the documentation and the docstrings promise, executed.

A Python fence runs as it stands, after the other fences of its page and in an empty folder of its own. One that needs
real weights, or a window, has the comment `<!-- example: compile -->` in the line above: it is compiled, and what it
imports from `musubi` must exist.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest

from musubi.quickstart import demo

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = sorted(path for path in (ROOT / "musubi").rglob("*.py") if ">>>" in path.read_text(encoding="utf-8"))
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)")
MARK = re.compile(r"<!-- example: (?P<mode>run|compile) -->")
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)#\s]+)(?:#[^)]*)?\)")
DOCTEST_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@attrs.frozen(kw_only=True)
class Example:
    """A fenced block: where it begins, in which language, its text, and whether it can run."""

    page: Path
    line: int
    language: str
    text: str
    mode: Literal["run", "compile"] = "run"

    def __str__(self) -> str:
        return f"{_name(self.page)}:{self.line}"

    def compiled(self) -> Any:
        """Return the code object; its tracebacks point into the page."""
        padding = "\n" * self.line
        return compile(padding + self.text, str(self.page), "exec")


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def examples(page: Path) -> Iterator[Example]:
    """Yield the fenced blocks of a page, top to bottom."""
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), start=1))
    mode: Literal["run", "compile"] = "run"
    for number, line in lines:
        if (mark := MARK.search(line)) is not None:
            mode = "compile" if mark["mode"] == "compile" else "run"
        elif (fence := FENCE.match(line)) is not None:
            indent = len(fence["indent"])
            body = [text[indent:] for text in _until_the_fence_closes(lines)]
            yield Example(page=page, line=number, language=fence["language"], text="\n".join(body) + "\n", mode=mode)
            mode = "run"


def _until_the_fence_closes(lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    for _, line in lines:
        if line.strip() == "```":
            return
        yield line


EXAMPLES = [example for page in PAGES for example in examples(page)]
PYTHON = [example for example in EXAMPLES if example.language == "python"]
RUNNING_PAGES = list(dict.fromkeys(example.page for example in PYTHON if example.mode == "run"))


@pytest.mark.parametrize("page", RUNNING_PAGES, ids=_name)
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    namespace: dict[str, object] = {"__name__": "__example__"}

    for example in PYTHON:
        if example.page == page and example.mode == "run":
            exec(example.compiled(), namespace)


@pytest.mark.parametrize("example", PYTHON, ids=str)
def test_an_example_compiles_and_imports_only_what_exists(example: Example) -> None:
    example.compiled()

    missing = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(example.text))
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.partition(".")[0] == "musubi"
        for alias in node.names
        if not _exists(node.module, alias.name)
    ]

    assert not missing


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.language == "toml"], ids=str)
def test_a_toml_example_parses(example: Example) -> None:
    assert tomllib.loads(example.text)


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_the_examples_in_docstrings_hold(module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dotted = _name(module.with_suffix("")).replace("/", ".").removesuffix(".__init__")
    monkeypatch.chdir(tmp_path)

    result = doctest.testmod(importlib.import_module(dotted), optionflags=DOCTEST_FLAGS)

    assert result.failed == 0


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent == ROOT], ids=_name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = [match["target"] for match in LINK.finditer(page.read_text(encoding="utf-8"))]

    broken = [target for target in targets if "://" not in target and not (page.parent / target).exists()]

    assert not broken


@pytest.mark.parametrize("name", ["quickstart", "tests"])
def test_the_readme_marks_the_command_that_ci_runs(name: str) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    assert text.count(f"<!-- ci:{name} -->\n```bash\n") == 1


def test_the_documentations_first_example_is_the_quickstarts_code() -> None:
    lines = inspect.getsource(demo.run).splitlines()
    body = textwrap.dedent("\n".join(line for line in lines[2:] if not line.strip().startswith("return ")))

    first = next(example for example in PYTHON if example.page == ROOT / "docs" / "index.md")

    assert body.strip() in first.text


def test_every_public_name_is_in_the_reference() -> None:
    public = set(importlib.import_module("musubi").__all__)
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))

    documented = set(re.findall(r"^::: musubi\.(\w+)$", pages, flags=re.MULTILINE))

    assert public == documented & public, f"missing: {sorted(public - documented)}"


def test_the_reference_documents_nothing_that_is_not_public() -> None:
    public = set(importlib.import_module("musubi").__all__)
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))

    documented = set(re.findall(r"^::: musubi\.(\w+)$", pages, flags=re.MULTILINE))

    assert documented - public <= {"architecture", "batch"}, f"not public: {sorted(documented - public)}"


def _exists(module: str, name: str) -> bool:
    """Whether `from module import name` would work."""
    found = importlib.import_module(module)
    if hasattr(found, name):
        return True
    try:
        importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True
