"""Specs: frozen, torch-free values that say what to do, check themselves and survive a round trip through files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import attrs

from musubi.core import atomic, serial
from musubi.core.declared import mistaken
from musubi.core.errors import ConfigError, Issue, shown
from musubi.core.fields import did_you_mean, failures
from musubi.core.notebook import card


@attrs.frozen(kw_only=True)
class Spec:
    """The root of all specs.

    Subclasses are ``attrs.frozen(kw_only=True)``, declare fields with ``musubi.core.fields.field`` and may override
    ``problems`` for what concerns several fields. ``family`` names the slot a strategy fits, ``kind`` the strategy.
    """

    family: ClassVar[str] = ""
    kind: ClassVar[str] = ""

    def __attrs_post_init__(self) -> None:
        self._settle()
        values = {attribute.name: getattr(self, attribute.name) for attribute in attrs.fields(type(self))}
        issues = _issues(type(self), values) or list(self.problems())
        if issues:
            raise ConfigError(type(self).__name__, issues)

    def _settle(self) -> None:
        """Give every value the form a file would give it back in: 1 -> 1.0, "x" -> Path("x"), [1] -> (1,)."""
        for attribute in attrs.fields(type(self)):
            value = getattr(self, attribute.name)
            convert = _FORMS.get((type(value), _declared(attribute)))
            if convert is not None:
                object.__setattr__(self, attribute.name, convert(value))

    def problems(self) -> Iterable[Issue]:
        """Yield what is wrong with this object as a whole; the fields' own checks have passed already."""
        return ()

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed.

        Raises:
            ConfigError: A field does not exist or does not accept the value.
        """
        known = [attribute.name for attribute in attrs.fields(type(self))]
        unknown = [Issue(n, f"no such field{did_you_mean(n, known)}") for n in changes if n not in known]
        if unknown:
            raise ConfigError(type(self).__name__, unknown)
        return attrs.evolve(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: numbers, text, lists and dictionaries."""
        return serial.unstructure(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, plugins: Sequence[type] = ()) -> Self:
        """Return the spec that plain values describe.

        Raises:
            ConfigError: With every problem found, each under its nested path.
        """
        return serial.structure(values, cls, plugins=plugins)

    def to_toml(self) -> str:
        """Return the spec as a TOML document."""
        import tomli_w

        return tomli_w.dumps(self.to_dict())

    @classmethod
    def from_toml(cls, text: str, *, plugins: Sequence[type] = ()) -> Self:
        """Return the spec that a TOML document describes; raises ``ConfigError``."""
        return cls.from_dict(serial.parse_toml(text), plugins=plugins)

    def to_json(self) -> str:
        """Return the spec as a JSON document."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, *, plugins: Sequence[type] = ()) -> Self:
        """Return the spec that a JSON document describes; raises ``ConfigError``."""
        return cls.from_dict(serial.parse_json(text), plugins=plugins)

    def save(self, path: Path | str) -> Path:
        """Write the spec to a ``.toml`` or ``.json`` file and return its path."""
        json_wanted = _suffix(path) == ".json"
        return atomic.write_text(path, self.to_json() if json_wanted else self.to_toml())

    @classmethod
    def load(cls, path: Path | str, *, plugins: Sequence[type] = ()) -> Self:
        """Read a ``.toml`` or ``.json`` file; raises ``ConfigError`` naming the file and every problem in it."""
        read = cls.from_json if _suffix(path) == ".json" else cls.from_toml
        try:
            return read(Path(path).read_text(encoding="utf-8"), plugins=plugins)
        except ConfigError as error:
            raise ConfigError(shown(path), error.issues) from error
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror or str(error) if isinstance(error, OSError) else "is not UTF-8 text"
            hint = "give an existing .toml or .json file"
            raise ConfigError("cannot read configuration", [Issue(shown(path), reason, hint)]) from error

    def fingerprint(self) -> str:
        """Return a short hash that is equal exactly for specs of equal content."""
        text = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _repr_html_(self) -> str:
        rows = [(a.name, getattr(self, a.name)) for a in attrs.fields(type(self)) if a.repr]
        return card(type(self).__name__, rows)


_FORMS: Mapping[tuple[type, str], Callable[[Any], object]] = MappingProxyType(
    {(int, "float"): float, (str, "Path"): Path, (list, "tuple"): tuple}
)


def _issues(cls: type[Spec], values: Mapping[str, object]) -> list[Issue]:
    """Return what each field's own check, or else its declared type, does not accept."""
    checked = failures(cls, values)
    named = {issue.path for issue in checked}
    return checked + [issue for issue in mistaken(cls, values) if issue.path not in named]


def _declared(attribute: attrs.Attribute[Any]) -> str:
    """Return the outer name of a field's declared type: ``tuple`` for ``tuple[int, ...]``."""
    declared: object = attribute.type
    name = declared if isinstance(declared, str) else str(getattr(declared, "__name__", ""))
    return name.partition("[")[0].removesuffix(" | None")


def _suffix(path: Path | str) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in {".toml", ".json"}:
        raise ConfigError("configuration file", [Issue(shown(path), "must end in .toml or .json")])
    return suffix
