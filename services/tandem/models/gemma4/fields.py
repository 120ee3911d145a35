"""Fields of a config.json, read with their types checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from tandem.core.errors import CheckpointError


@dataclass(frozen=True)
class Fields:
    """One JSON object of a configuration file. Without a default, a field is required.

    Every method raises CheckpointError, naming file and field, for a value of another type or out of range.
    """

    source: str  # the file, and the section in it
    values: Mapping[str, Any]

    def names(self) -> tuple[str, ...]:
        """The fields that are there."""
        return tuple(self.values)

    def get(self, name: str, default: Any = None) -> Any:
        """The raw value."""
        return self.values.get(name, default)

    def error(self, name: str, description: str) -> CheckpointError:
        """What to raise for the value of a field."""
        return CheckpointError(f"{self.source}: {name} {description}, not {self.get(name)!r}")

    def refuse(self, name: str, served: Any, feature: str, default: Any = None) -> None:
        """Refuses every value but the served one, which is the default where none is given."""
        if self.get(name, served if default is None else default) not in (served, None):
            raise CheckpointError(f"{self.source}: {name}: {feature}: not served")

    def integer(self, name: str, default: int | None = None, minimum: int = 1) -> int:
        """A count."""
        value = self.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise self.error(name, f"must be an integer of at least {minimum}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A positive, finite number."""
        value = self.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value) or value <= 0:
            raise self.error(name, "must be a positive number")
        return float(value)

    def optional_number(self, name: str) -> float | None:
        """A positive, finite number, or none."""
        return None if self.get(name) is None else self.number(name)

    def boolean(self, name: str, default: bool) -> bool:
        """A flag."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise self.error(name, "must be true or false")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """A name."""
        value = self.get(name, default)
        if not isinstance(value, str):
            raise self.error(name, "must be text")
        return value

    def section(self, name: str) -> "Fields":
        """An object inside this one."""
        value = self.get(name)
        if not isinstance(value, dict):
            raise self.error(name, "must be an object")
        return Fields(f"{self.source}: {name}", value)
