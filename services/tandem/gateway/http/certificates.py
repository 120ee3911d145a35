"""The gateway's certificates at this door, taken up anew as they change."""

import asyncio
import ssl

from tandem.rpc.tls import ServerCertificates, server_context
from tandem.rpc.tls_files import ServerTls

REFRESH_SECONDS = 1.0


class FollowedCertificates:
    """A context for servers of which each new connection sees the files as they were `REFRESH_SECONDS` ago at most."""

    def __init__(self, files: ServerTls) -> None:
        """Reads them.

        Raises:
            ConfigError: a file cannot be read, or key and certificate are no pair.
        """
        self._certificates = ServerCertificates(files, _context)
        self.context = _context(files)
        self.context.sni_callback = self._hand_over  # called for clients that name no server as well

    async def follow(self) -> None:
        """Takes up changes for as long as it runs."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            await asyncio.to_thread(self._certificates.fetch)

    def _hand_over(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._certificates.current


def _context(files: ServerTls) -> ssl.SSLContext:
    context = server_context(files)
    context.set_alpn_protocols(["http/1.1"])
    return context
