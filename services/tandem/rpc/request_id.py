"""The id of the request being handled, for logs and errors, wherever in the call tree they are made."""

import uuid
from contextvars import ContextVar

MAX_REQUEST_ID_CHARACTERS = 128

_current: ContextVar[str] = ContextVar("request_id", default="-")


def current_request_id() -> str:
    """Id of the request that this task serves; `-` outside of any."""
    return _current.get()


def is_valid_request_id(request_id: str) -> bool:
    """Whether a client's id may be shown in logs: short, printable and without line breaks."""
    return 0 < len(request_id) <= MAX_REQUEST_ID_CHARACTERS and request_id.isprintable()


def adopt_request_id(request: object) -> str:
    """Makes the id that a request message carries, or a new one, that of this task.

    The public messages carry it in `spec`, the internal ones at the top. An id that may not be shown is replaced here;
    the servicer refuses it.
    """
    carrier = getattr(request, "spec", request)
    return adopt_given_id(getattr(carrier, "request_id", ""))


def adopt_given_id(given: str) -> str:
    """Like `adopt_request_id`, of an id that stands by itself; empty: none was chosen."""
    request_id = given if is_valid_request_id(given) else uuid.uuid4().hex
    _current.set(request_id)
    return request_id
