"""A notebook's parameters: declared once, checked wherever they come from.

An experiment declares its parameters as a frozen dataclass whose fields are made by
:func:`setting`. The same declaration checks the globals of a notebook, the words of a
command line and the values of a profile file, so that a wrong name or value is refused
with the list of what is allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
import types
import typing
import warnings
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

PROFILES = ("quick", "workstation", "paper")
"""The profiles in rising order of size."""
ENGINES = ("serial", "processes", "ray", "dask")
"""How conditions are run: one after another in this process; in processes; on Ray; on Dask."""

_T = TypeVar("_T")
LARGEST = 1e12
"""Size of a number at most, whatever its limits: more steps, samples or seeds than can be."""
_PLAIN = (bool, int, float, str, list, tuple, dict, type(None))
_NOT_PARAMETERS = {"In", "Out", "exit", "quit", "get_ipython", "open"}
_MARK = "_settings_read"
_YAML_1_1_TEXT = re.compile(r"[-+]?\d+[eE][-+]?\d+")  # 1e-4, which YAML 1.1 takes for text


class SettingsError(ValueError):
    """A parameter whose name or value is not allowed."""


class Description(NamedTuple):
    """What a reader needs to know to set one parameter."""

    name: str
    type: str
    default: Any
    help: str
    allowed: str


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Iterable[Any] | None = None,
    decides: bool = True,
) -> Any:
    """Declare one parameter of a frozen settings dataclass.

    Args:
        default: Value if nothing else is said; a tuple for a parameter with several values.
        help: One sentence saying what the parameter means, with its unit.
        low: Smallest allowed number, inclusive; holds for every element of a tuple.
        high: Largest allowed number, inclusive; holds for every element of a tuple.
        choices: All allowed values; hold for every element of a tuple.
        decides: Whether a result may depend on it.

    Returns:
        A dataclass field that carries help and limits in its metadata.
    """
    limits = {"low": low, "high": high, "choices": None if choices is None else tuple(choices)}
    return dataclasses.field(default=default, metadata={"help": help, "decides": decides, **limits})


def from_namespace(cls: type[_T], namespace: MutableMapping[str, Any]) -> _T:
    """Make settings from a notebook's globals, right after the cell with the parameters.

    Plain values (numbers, text, lists, ...) are taken for parameters; modules, functions,
    classes, names that begin with an underscore and IPython's own names are not. The first
    call in a kernel refuses every unknown name. When the cell is executed again, variables of
    later cells lie beside the parameters, so that from then on an unknown name is
    ignored, with a warning if it resembles a parameter.

    Args:
        cls: The settings dataclass.
        namespace: ``globals()`` of the notebook.

    Returns:
        The checked settings.

    Raises:
        SettingsError: If a name is unknown or a value is not allowed.
    """
    first = not namespace.get(_MARK, False)
    namespace[_MARK] = True
    values = {
        name: value
        for name, value in namespace.items()
        if isinstance(value, _PLAIN) and not name.startswith("_") and name not in _NOT_PARAMETERS
    }
    if not first:
        allowed = {field.name for field in dataclasses.fields(cls)}
        for name in sorted(values.keys() - allowed):
            del values[name]
            if _close(name, allowed):
                warnings.warn(f"ignored: {_unknown(name, allowed)}", stacklevel=2)
    return from_values(cls, values)


def from_strings(
    cls: type[_T], pairs: Iterable[tuple[str, str]], base: Mapping[str, Any] | None = None
) -> _T:
    """Make settings from the words of a command line.

    Args:
        cls: The settings dataclass.
        pairs: Names and values; a value is read as YAML unless the parameter is a text.
            A parameter with several values takes ``3``, ``3,5`` or ``[3, 5]``.
        base: Values below the pairs, for example those of a profile.

    Returns:
        The checked settings.

    Raises:
        SettingsError: If a name is unknown or given twice, or a value is not allowed.
    """
    hints = typing.get_type_hints(cls)
    values = dict(base or {})
    given = set()
    for name, text in pairs:
        if name in given:
            raise SettingsError(f"parameter '{name}' is given twice; give it once")
        given.add(name)
        values[name] = text if _takes_text(hints.get(name, str), text) else _yaml(name, text)
    return from_values(cls, values)


def from_values(cls: type[_T], values: Mapping[str, Any]) -> _T:
    """Make settings from a mapping of parameter names to plain values.

    Lists become tuples, whole numbers become floats where a float is asked for, and a single
    value given for a tuple becomes a tuple of one.

    Args:
        cls: The settings dataclass.
        values: Parameters that differ from the defaults.

    Returns:
        The checked settings.

    Raises:
        SettingsError: If a name is unknown or a value is not allowed.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name in values:
        if name not in fields:
            raise SettingsError(_unknown(name, fields))
    checked = {}
    for name, value in values.items():
        checked[name] = _coerce(name, value, hints[name])
        _check_limits(name, checked[name], fields[name].metadata)
    try:
        return cls(**checked)
    except ValueError as error:  # a rule between parameters, in the class's own words
        raise SettingsError(str(error)) from error


def describe(cls: type) -> list[Description]:
    """List a settings dataclass's parameters: name, type, default, help, allowed values."""
    hints = typing.get_type_hints(cls)
    return [
        Description(
            field.name,
            _type_name(hints[field.name]),
            field.default,
            field.metadata.get("help", ""),
            _allowed(field.metadata),
        )
        for field in dataclasses.fields(cls)
    ]


def label(settings: Any, profile_values: Mapping[str, Any]) -> str:
    """Name a run by its profile and by what was changed in it.

    What does not decide a result, such as engine and device, is left out.

    Args:
        settings: The run's settings.
        profile_values: The values of its profile, as :func:`load_profile` gives them.

    Returns:
        ``"quick"``, or ``"quick, changed: seeds=1"`` where values differ from the profile's.
    """
    reference = from_values(type(settings), {**profile_values, "profile": settings.profile})
    changed = [
        f"{field.name}={_shown(getattr(settings, field.name))}"
        for field in dataclasses.fields(settings)
        if field.name != "profile"
        and field.metadata.get("decides", True)
        and getattr(settings, field.name) != getattr(reference, field.name)
    ]
    return settings.profile + (f", changed: {', '.join(changed)}" if changed else "")


def load_profile(section: str, profile: str) -> dict[str, Any]:
    """Read ``notebooks/profiles/<profile>/<section>.yaml`` of the project.

    Args:
        section: Name of the section, such as ``"toy_models"``.
        profile: One of :data:`PROFILES`.

    Returns:
        Parameter names and values.

    Raises:
        SettingsError: If the profile is unknown, absent for this section, or not a mapping.
    """
    if profile not in PROFILES:
        raise SettingsError(f"unknown profile '{profile}'; allowed: {', '.join(PROFILES)}")
    path = project_root() / "notebooks" / "profiles" / profile / f"{section}.yaml"
    if not path.is_file():
        existing = ", ".join(profiles_of(section)) or "none"
        raise SettingsError(
            f"section '{section}' has no profile '{profile}' ({path} is missing); "
            f"profiles it has: {existing}"
        )
    values = _yaml(str(path), path.read_text(encoding="utf-8")) or {}
    if not isinstance(values, dict):
        raise SettingsError(f"{path} must be a mapping of parameter names to values")
    return values


def profiles_of(section: str) -> list[str]:
    """List the profiles that have a file for a section, in rising order."""
    folder = project_root() / "notebooks" / "profiles"
    return [profile for profile in PROFILES if (folder / profile / f"{section}.yaml").is_file()]


def project_root() -> Path:
    """Find the project: the nearest folder from here upward with a ``_config.yml``, else here."""
    here = Path.cwd()
    return next((path for path in (here, *here.parents) if (path / "_config.yml").is_file()), here)


def data_root(directory: Path | str | None = None) -> Path:
    """Return a folder, or if it is None that of data sets: SUPERPOS_DATA, else ``data`` here."""
    return Path(directory or os.environ.get("SUPERPOS_DATA") or "data")


def _yaml(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        shown = " ".join(text.split())
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        raise SettingsError(f"{name}: '{shown}' is not valid YAML: {reason}") from None


def _takes_text(hint: Any, text: str) -> bool:
    """Whether a command line's word stays as it is: text, or the items of a tuple."""
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    if type(None) in options and text.strip().lower() in {"null", "none", "~", ""}:
        return False
    return str in options or any(typing.get_origin(option) is tuple for option in options)


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _coerce(name: str, value: Any, hint: Any) -> Any:
    """Return ``value`` as the annotated type, or refuse it."""
    if _is_union(hint):
        return _coerce_union(name, value, typing.get_args(hint), hint)
    if typing.get_origin(hint) is tuple:
        return _coerce_tuple(name, value, typing.get_args(hint))
    if hint not in (bool, int, float, str, type(None)):
        raise TypeError(f"setting '{name}' is declared with the unsupported type {hint}")
    if hint is float and isinstance(value, str) and _YAML_1_1_TEXT.fullmatch(value):
        return float(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise SettingsError(
        f"parameter '{name}' must be {_type_name(hint)}, got {value!r} ({type(value).__name__})"
    )


def _coerce_union(name: str, value: Any, options: tuple[Any, ...], hint: Any) -> Any:
    if value is None and type(None) in options:
        return None
    for option in options:
        if option is type(None):
            continue
        try:
            return _coerce(name, value, option)
        except SettingsError:
            continue
    raise SettingsError(f"parameter '{name}' must be {_type_name(hint)}, got {value!r}")


def _coerce_tuple(name: str, value: Any, items: tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(value, str):
        text = value.strip()
        value = _yaml(name, text if text.startswith("[") else f"[{text}]")
    if not isinstance(value, (list, tuple)):
        value = (value,)
    if len(items) == 2 and items[1] is Ellipsis:
        found = tuple(_coerce(name, item, items[0]) for item in value)
        if len(set(found)) < len(found):
            raise SettingsError(f"parameter '{name}' repeats a value: {list(value)}")
        return found
    if len(items) != len(value):
        raise SettingsError(f"parameter '{name}' must have {len(items)} values, got {value!r}")
    return tuple(_coerce(name, item, hint) for item, hint in zip(value, items, strict=True))


def _check_limits(name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    if isinstance(value, tuple):
        for item in value:
            _check_limits(name, item, metadata)
        return
    if value is None:
        return
    low, high, choices = (metadata.get(key) for key in ("low", "high", "choices"))
    outside = (low is not None and not value >= low) or (high is not None and not value <= high)
    number = isinstance(value, (int, float))
    endless = number and not (math.isfinite(value) and abs(value) <= LARGEST)
    if outside or endless or (choices is not None and value not in choices):
        allowed = _allowed(metadata) or "a number"
        allowed += f", no number beyond {LARGEST:.0e}" if endless and not outside else ""
        raise SettingsError(f"parameter '{name}' may not be {value!r}; allowed: {allowed}")


def _allowed(metadata: Mapping[str, Any]) -> str:
    low, high, choices = (metadata.get(key) for key in ("low", "high", "choices"))
    if choices is not None:
        return ", ".join(str(choice) for choice in choices)
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"at least {low}" if low is not None else f"at most {high}" if high is not None else ""


def _type_name(hint: Any) -> str:
    """Write a type as in its annotation: ``float``, ``int | None``, ``tuple[float, ...]``."""
    if hint is type(None):
        return "None"
    if hint is Ellipsis:
        return "..."
    names = ", ".join(_type_name(item) for item in typing.get_args(hint))
    if _is_union(hint):
        return names.replace(", ", " | ")
    return f"tuple[{names}]" if typing.get_origin(hint) is tuple else hint.__name__


def _shown(value: Any) -> str:
    return ",".join(str(item) for item in value) if isinstance(value, tuple) else str(value)


def _close(name: str, allowed: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name, list(allowed), n=1)


def _unknown(name: str, allowed: Iterable[str]) -> str:
    names = sorted(allowed)
    close = _close(name, names)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"unknown parameter '{name}'; allowed: {', '.join(names)}{hint}"
