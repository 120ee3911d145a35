"""Command-line options made from configuration classes, so that no setting is described twice."""

import argparse
import os
from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, NoReturn, TypeVar

from tandem.core.config import ENVIRONMENT_PREFIX, load, value_type

BAD_USAGE = 2  # exit code

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def __init__(self, **settings: Any) -> None:
        """As `argparse.ArgumentParser`, without abbreviations: they break when an option is added."""
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Ends the process."""
        self.exit(BAD_USAGE, f"{self.prog}: error: {message}; see '{self.prog} --help'\n")


def add_options(
    parser: argparse.ArgumentParser,
    *configs: type,
    without: Collection[str] = (),
    title: str = "settings",
    has_variables: bool = True,
) -> None:
    """Adds an option for every field of `configs`, under its own name with dashes.

    A field that several of them have becomes one option, described as the first describes it; those named in `without`
    become none. Only options that were given leave a trace in the parsed arguments.

    Args:
        parser: that gets them.
        configs: the classes.
        without: fields that are no options.
        title: of the group that help shows them in.
        has_variables: whether the environment may hold them too; help says so.
    """
    group = parser.add_argument_group(title)
    added = set(without)
    for config in configs:
        for declared in fields(config):
            if declared.name not in added:
                added.add(declared.name)
                _add_option(group, config, declared, has_variables)


def load_config(
    config: type[T],
    arguments: argparse.Namespace,
    decided: Mapping[str, str] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> T:
    """Builds `config` from the environment and the parsed arguments.

    Args:
        config: the class to build.
        arguments: options that `add_options` made.
        decided: fields whose value is not the user's to choose here, as text.
        environment: where settings are looked for besides.

    Raises:
        ConfigError: as `tandem.core.config.load`.
    """
    given = vars(arguments)
    overrides = {declared.name: given[declared.name] for declared in fields(config) if declared.name in given}  # type: ignore[arg-type]
    return load(config, environment, {**overrides, **(decided or {})})


def to_arguments(config: object) -> list[str]:
    """The command-line options that make `config` again where the environment says nothing."""
    assert not isinstance(config, type)
    arguments = []
    for declared in fields(config):  # type: ignore[arg-type]
        value = getattr(config, declared.name)
        if value == declared.default:
            continue
        if isinstance(value, bool):
            arguments.append(_flag(declared.name, value))
        else:
            arguments.append(f"{_flag(declared.name, True)}={value}")
    return arguments


def _add_option(group: "argparse._ArgumentGroup", config: type, declared: "Field[Any]", has_variable: bool) -> None:
    kind = value_type(config, declared.name)
    variable = f"; env {ENVIRONMENT_PREFIX}{declared.name.upper()}" if has_variable else ""
    description = f"{declared.metadata['help']} [{_default(declared)}{variable}]"
    common: dict[str, Any] = {
        "dest": declared.name,
        "default": argparse.SUPPRESS,
        "help": description.replace("%", "%%"),
    }
    if kind is bool:
        group.add_argument(_flag(declared.name, True), action="store_const", const="true", **common)
        common["help"] = argparse.SUPPRESS
        group.add_argument(_flag(declared.name, False), action="store_const", const="false", **common)
    else:
        choices = declared.metadata["choices"]
        metavar = "|".join(choices) if choices else {int: "INT", float: "NUMBER"}.get(kind, "TEXT")
        group.add_argument(_flag(declared.name, True), metavar=metavar, **common)


def _flag(name: str, is_on: bool) -> str:
    return f"--{'' if is_on else 'no-'}{name.replace('_', '-')}"


def _default(declared: "Field[Any]") -> str:
    match declared.default:
        case default if default is MISSING:
            return "required"
        case None:
            return "default: none"
        case "":
            return "default: empty"
        case bool() as default:
            return f"default: {str(default).lower()}"
        case default:
            return f"default: {default}"
