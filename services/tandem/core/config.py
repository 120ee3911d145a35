"""The one place that reads configuration.

A service declares a frozen dataclass whose fields are made with `option`. `load` fills it from, in rising order,
defaults, `TANDEM_<FIELD>` in the environment, and command-line values; validates it once; and never changes it again.
"""

import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, field, fields
from typing import Any, TypeVar

from tandem.core.errors import ConfigError

ENVIRONMENT_PREFIX = "TANDEM_"

T = TypeVar("T")


def option(default: Any = MISSING, *, help: str, choices: Iterable[str] | None = None) -> Any:
    """Declares a configuration field: its default (none: required), one line of help, allowed values."""
    metadata = {"help": help, "choices": tuple(choices) if choices else None}
    return field(default=default, metadata=metadata)


def value_type(config: type, name: str) -> type:
    """The plain type of a field: `int` for both `int` and `int | None`."""
    hint = typing.get_type_hints(config)[name]
    if isinstance(hint, types.UnionType):
        hint = next(member for member in typing.get_args(hint) if member is not type(None))
    assert isinstance(hint, type)
    return hint


def load(config: type[T], environment: Mapping[str, str], overrides: Mapping[str, str]) -> T:
    """Builds `config` from environment and command line.

    Args:
        config: the dataclass to build.
        environment: usually `os.environ`; names without the prefix are ignored.
        overrides: field name to text, as given on the command line.

    Raises:
        ConfigError: a value does not parse, is not allowed, or a required one is missing.
    """
    values: dict[str, Any] = {}
    for declared in _declared(config):
        source, text = f"--{declared.name.replace('_', '-')}", overrides.get(declared.name)
        if text is None:
            source = ENVIRONMENT_PREFIX + declared.name.upper()
            text = environment.get(source)
        if text is not None:
            values[declared.name] = _parse(config, declared, source, text)
        elif declared.default is MISSING:
            raise ConfigError(f"--{declared.name.replace('_', '-')} is required")
    return config(**values)


def refuse_unknown(environment: Mapping[str, str], configs: Iterable[type]) -> None:
    """Raises ConfigError for a `TANDEM_` variable that no service declares: most often a typo."""
    known = {ENVIRONMENT_PREFIX + declared.name.upper() for config in configs for declared in _declared(config)}
    unknown = sorted(name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known)
    if unknown:
        raise ConfigError(f"unknown environment variable {unknown[0]}; 'tandem COMMAND --help' names those there are")


def to_environment(config: object) -> dict[str, str]:
    """The variables that make `config` again, in another process, where nothing else is said."""
    assert not isinstance(config, type)
    values = {declared.name: getattr(config, declared.name) for declared in _declared(type(config))}
    defaults = {declared.name: declared.default for declared in _declared(type(config))}
    return {
        ENVIRONMENT_PREFIX + name.upper(): str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in values.items()
        if value != defaults[name]
    }


def describe(config: object) -> str:
    """One line with every value in force, for the log; secrets are given as files, so none can show."""
    assert not isinstance(config, type)
    return " ".join(f"{declared.name}={getattr(config, declared.name)!r}" for declared in _declared(type(config)))


def _declared(config: type) -> tuple[Field[Any], ...]:
    return fields(config)


def _parse(config: type, declared: Field[Any], source: str, text: str) -> Any:
    choices = declared.metadata["choices"]
    if choices and text not in choices:
        raise ConfigError(f"{source} must be one of {', '.join(choices)}, not {text!r}")
    kind = value_type(config, declared.name)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{source} must be true or false, not {text!r}")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"{source} must be {kind.__name__}, not {text!r}") from None
