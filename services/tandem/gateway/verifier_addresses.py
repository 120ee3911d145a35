"""Where verifiers are: addresses as the setting names them, and all those that a DNS name has at the moment."""

import asyncio
import logging
import socket

from tandem.core.errors import ConfigError

logger = logging.getLogger(__name__)

DNS_PREFIX = "dns:"


class VerifierAddresses:
    """A list of `unix:/PATH`, `HOST:PORT` and `dns:HOST:PORT`; each address of the last kind's HOST is a verifier."""

    def __init__(self, setting: str) -> None:
        """Reads the list, whose parts commas separate.

        Raises:
            ConfigError: it is empty, or a name has no port.
        """
        entries = [entry.strip() for entry in setting.split(",")]
        if not all(entries):
            raise ConfigError(f"--verifier names nobody in {setting!r}: expected addresses with commas between them")
        self._fixed = frozenset(entry for entry in entries if not entry.startswith(DNS_PREFIX))
        # What a name meant when it was last looked up with success.
        self._found: dict[tuple[str, str], frozenset[str]] = {}
        for entry in entries:
            if entry.startswith(DNS_PREFIX):
                host, _, port = entry.removeprefix(DNS_PREFIX).rpartition(":")
                if not (host and port.isdecimal() and int(port) <= 65535):
                    raise ConfigError(f"--verifier cannot be {entry!r}: expected {DNS_PREFIX}HOST:PORT")
                self._found[host, port] = frozenset()

    async def find(self) -> frozenset[str]:
        """All addresses now. A name that cannot be looked up means what it meant before: its verifiers may be well."""
        for host, port in self._found:
            try:
                answers = await asyncio.to_thread(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
            except OSError as error:
                logger.warning("cannot look up %s: %s", host, error)
                continue
            self._found[host, port] = frozenset(_address(str(answer[4][0]), port) for answer in answers)
        return self._fixed.union(*self._found.values())


def _address(host: str, port: str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
