"""JSON inside messages: read within bounds, its texts encoded like all other text of clients."""

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

from tandem.core.errors import InvalidRequest

MAX_DEPTH = 32
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_json(text: str, field: str, plain: Callable[[str], str]) -> Any:
    """The value that `text` spells, each string and each key of it passed through `plain`.

    Raises:
        InvalidRequest: `field` holds no JSON, or JSON that nothing could be done with.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        raise InvalidRequest(field, "is not valid JSON") from None
    return _plain(value, field, plain, MAX_DEPTH)


def read_object(text: str, field: str, plain: Callable[[str], str]) -> dict[str, Any]:
    """Like `read_json`, for what has to be an object; an empty text is one without entries.

    Raises:
        InvalidRequest: it is none.
    """
    value = read_json(text or "{}", field, plain)
    if not isinstance(value, dict):
        raise InvalidRequest(field, "must be a JSON object")
    return value


def _plain(value: Any, field: str, plain: Callable[[str], str], depth_left: int) -> Any:
    match value:
        case str():
            if _SURROGATE.search(value):
                raise InvalidRequest(field, "holds half of a surrogate pair")
            return plain(value)
        case dict() | list() if not depth_left:
            raise InvalidRequest(field, f"nests deeper than {MAX_DEPTH}")
        case dict():
            return {
                _plain(key, field, plain, depth_left): _plain(item, field, plain, depth_left - 1)
                for key, item in value.items()
            }
        case list():
            return [_plain(item, field, plain, depth_left - 1) for item in value]
        case _:
            return value


def _finite(text: str) -> float:
    number = float(text)
    if abs(number) == float("inf"):
        raise ValueError(text)
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and the infinities, which Python takes for JSON
