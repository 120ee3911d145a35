"""API keys: who may call, and what."""

import asyncio
import hashlib
import hmac
import logging
import os
import re
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from pathlib import Path

import grpc

from tandem.core.errors import ConfigError, Unauthenticated
from tandem.gateway.access_rules import Access, access_to
from tandem.rpc.interceptors import Continuation, Handler

logger = logging.getLogger(__name__)

SCHEME = "bearer "
DIGEST_LINE = re.compile(r"sha256:([0-9a-f]{64})")
REFRESH_SECONDS = 1.0
ANYBODY = b""

_caller: ContextVar[bytes] = ContextVar("caller", default=ANYBODY)


def current_caller() -> bytes:
    """Digest of the key that the current call came with; `ANYBODY` where no keys are asked for."""
    return _caller.get()


class ApiKeys:
    """Digests of every key that is good now; several, so that they can be replaced without a gap."""

    def __init__(self, digests: Iterable[bytes]) -> None:
        """Takes the keys' SHA-256. Keys are random, so that no slower digest is called for."""
        self._digests = tuple(digests)

    @classmethod
    def load(cls, path: Path) -> "ApiKeys":
        """Reads one key a line, or `sha256:` and its digest; blank lines and lines that start with # are none.

        Raises:
            ConfigError: the file cannot be read, or holds no key: nobody could ever call.
        """
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        except OSError as error:
            raise ConfigError(f"cannot read API keys from {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"cannot read API keys from {path}: it is no text") from None
        digests = [_digest_of_line(line) for line in lines if line and not line.startswith("#")]
        if not digests:
            raise ConfigError(f"{path} holds no API key")
        return cls(digests)

    def find(self, given: bytes) -> bytes | None:
        """Digest of a key; None when it is not one.

        Looks at every key to its end, so that the time taken tells nothing about them.
        """
        digest, found = hashlib.sha256(given).digest(), None
        for known in self._digests:
            if hmac.compare_digest(known, digest):
                found = known
        return found


class ApiKeysFile:
    """The keys of a file that may change while it is served from."""

    def __init__(self, path: Path) -> None:
        """Reads the file.

        Raises:
            ConfigError: as `ApiKeys.load`.
        """
        self._path = path
        self._stamp = _stamp(path)
        self.keys = ApiKeys.load(path)

    async def follow(self) -> None:
        """Takes up changes within `REFRESH_SECONDS`, for as long as it runs.

        A file that is gone or holds no key changes nothing: whoever could call still can.
        """
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            await asyncio.to_thread(self._refresh)

    def _refresh(self) -> None:
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self.keys = ApiKeys.load(self._path)
            logger.info("serves the new API keys of %s", self._path)
        except ConfigError as error:
            logger.error("keeps the API keys of before: %s", error)


class Authentication:
    """Finds out who calls, at whichever door."""

    def __init__(self, keys_file: ApiKeysFile | None) -> None:
        """Knows the holders of a key of `keys_file`; None: nobody is asked for one."""
        self._keys_file = keys_file

    def identify(self, values: Sequence[str | bytes]) -> None:
        """Makes the holder of a key the caller of this task.

        Args:
            values: of all `authorization` entries that came with the call.

        Raises:
            Unauthenticated: they hold no key, or none that is known.
        """
        if self._keys_file is None:
            return
        caller = self._keys_file.keys.find(_key(values))
        if caller is None:
            raise Unauthenticated("needs 'authorization: Bearer KEY' with a known key")
        _caller.set(caller)


class AuthenticationInterceptor(grpc.aio.ServerInterceptor):
    """Closed by default: asks for a key at every method that is not open, and has no method without a rule."""

    def __init__(self, authentication: Authentication) -> None:
        """Lets whom `authentication` knows in, to methods that have a rule."""
        self._authentication = authentication

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        """Goes by the method that grpc routes by, not by anything rebuilt from it.

        Raises:
            Unauthenticated: no key came with the call, or none that is known.
        """
        access = access_to(handler_call_details.method)
        if access is not Access.OPEN:
            metadata = handler_call_details.invocation_metadata
            self._authentication.identify([value for key, value in metadata if key == "authorization"])
        if access is Access.NONE:
            return None  # answered as if it did not exist
        return await continuation(handler_call_details)


def _digest_of_line(line: str) -> bytes:
    digest = DIGEST_LINE.fullmatch(line)
    return bytes.fromhex(digest[1]) if digest else hashlib.sha256(line.encode()).digest()


def _key(values: Sequence[str | bytes]) -> bytes:
    """The key inside the authorization metadata; empty, which no key is, when there is not exactly one."""
    if len(values) != 1 or not isinstance(values[0], str) or values[0][: len(SCHEME)].lower() != SCHEME:
        return b""
    return values[0][len(SCHEME) :].strip().encode()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes with a file, or with the symbolic link by which a secret is mounted; None: it is gone."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
