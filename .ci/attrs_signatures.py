"""Show the constructors of attrs classes in the documentation; griffe, which reads the code, knows dataclasses only."""

from __future__ import annotations

from typing import Any

from griffe import Attribute, Class, Expr, ExprCall, Extension, Function, Module, Parameter, ParameterKind, Parameters

DECORATORS = {"attrs.frozen", "attrs.define"}
FIELDS = {"attrs.field", "musubi.core.fields.field"}


class AttrsSignatures(Extension):
    """Give every attrs class of a package the ``__init__`` that attrs will."""

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        """Walk a package once all of it is loaded, so that base classes are known."""
        _visit(pkg)


def _visit(holder: Module | Class) -> None:
    for member in holder.members.values():
        if isinstance(member, Class):
            _give_constructor(member)
        if isinstance(member, Module | Class):
            _visit(member)


def _give_constructor(cls: Class) -> None:
    if _options(cls) is None or "__init__" in cls.members:
        return
    found = {p.name: p for ancestor in [*reversed(_ancestors(cls)), cls] for p in _parameters(ancestor)}
    in_order = sorted(found.values(), key=lambda p: p.kind is ParameterKind.keyword_only)
    self = Parameter("self", kind=ParameterKind.positional_or_keyword)
    init = Function("__init__", parent=cls, parameters=Parameters(self, *in_order), returns="None")
    cls.set_member("__init__", init)


def _ancestors(cls: Class) -> list[Class]:
    try:
        return cls.mro()
    except ValueError:
        return []


def _options(cls: Class) -> dict[str, Any] | None:
    """Return the arguments of the attrs decorator, None without one."""
    for decorator in cls.decorators:
        if isinstance(decorator.value, Expr) and decorator.value.canonical_path in DECORATORS:
            return _arguments(decorator.value)
    return None


def _parameters(cls: Class) -> list[Parameter]:
    options = _options(cls)
    if options is None:
        return []
    attributes = [member for member in cls.members.values() if isinstance(member, Attribute)]
    return [_parameter(a, kw_only=options.get("kw_only") == "True") for a in attributes if _is_field(a)]


def _is_field(attribute: Attribute) -> bool:
    in_class_only = "class-attribute" in attribute.labels and "instance-attribute" not in attribute.labels
    return attribute.annotation is not None and "property" not in attribute.labels and not in_class_only


def _parameter(attribute: Attribute, *, kw_only: bool) -> Parameter:
    value, default = attribute.value, attribute.value
    if isinstance(value, ExprCall) and value.canonical_path in FIELDS:
        options = _arguments(value)
        kw_only = kw_only or options.get("kw_only") == "True"
        factory = options.get("factory")
        default = options.get("default") if factory is None else ExprCall(function=factory, arguments=[])
    kind = ParameterKind.keyword_only if kw_only else ParameterKind.positional_or_keyword
    name = attribute.name.lstrip("_")
    return Parameter(name, annotation=attribute.annotation, kind=kind, default=default)


def _arguments(expression: Expr) -> dict[str, Any]:
    if not isinstance(expression, ExprCall):
        return {}
    return {a.name: a.value for a in expression.arguments if not isinstance(a, str) and hasattr(a, "name")}
