"""API keys: who may call at all."""

import hmac
from collections.abc import Iterable
from contextvars import ContextVar
from pathlib import Path

import grpc

from tandem.core.errors import ConfigError, Unauthenticated
from tandem.rpc import health
from tandem.rpc.interceptors import Continuation, Handler

SCHEME = "bearer "

_caller: ContextVar[int] = ContextVar("caller", default=0)


def current_caller() -> int:
    """Number of the key that the current call came with; 0 where no keys are asked for."""
    return _caller.get()


class ApiKeys:
    """Every key that is good now; several, so that they can be replaced without a gap."""

    def __init__(self, keys: Iterable[str]) -> None:
        """Takes the keys as users send them."""
        self._keys = tuple(key.encode() for key in keys)

    @classmethod
    def load(cls, path: Path) -> "ApiKeys":
        """Reads one key a line; blank lines and lines that start with # are none.

        Raises:
            ConfigError: the file cannot be read, or holds no key: nobody could ever call.
        """
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read API keys from {path}: {error}") from None
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys:
            raise ConfigError(f"{path} holds no API key")
        return cls(keys)

    def find(self, given: bytes) -> int | None:
        """Number of a key; None when it is not one.

        Looks at every key to its end, so that the time taken tells nothing about them.
        """
        found = None
        for number, key in enumerate(self._keys):
            if hmac.compare_digest(key, given):
                found = number
        return found


class AuthenticationInterceptor(grpc.aio.ServerInterceptor):
    """Asks for a key at every method, known or not, but those of the health service."""

    def __init__(self, keys: ApiKeys) -> None:
        """Lets holders of `keys` in."""
        self._keys = keys

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        """Goes by the method that grpc routes by, not by anything rebuilt from it.

        Raises:
            Unauthenticated: no key came with the call, or none that is known.
        """
        if not handler_call_details.method.startswith(f"/{health.SERVICE_NAME}/"):
            values = [value for key, value in handler_call_details.invocation_metadata if key == "authorization"]
            number = self._keys.find(_key(values))
            if number is None:
                raise Unauthenticated("needs metadata 'authorization: Bearer KEY' with a known key")
            _caller.set(number)
        return await continuation(handler_call_details)


def _key(values: list[str | bytes]) -> bytes:
    """The key inside the authorization metadata; empty, which no key is, when there is not exactly one."""
    if len(values) != 1 or not isinstance(values[0], str) or values[0][: len(SCHEME)].lower() != SCHEME:
        return b""
    return values[0][len(SCHEME) :].strip().encode()
