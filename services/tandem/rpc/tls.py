"""TLS by files: what a server shows, read again whenever it changes, and what a client shows."""

import logging
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import grpc

from tandem.core.errors import ConfigError
from tandem.rpc.tls_files import ClientTls, ServerTls

logger = logging.getLogger(__name__)

# Of each file: what replaces a file, in place or by a symbolic link as secrets are mounted, changes one of them.
Stamp = tuple[tuple[int, int, int], ...]

Contents = TypeVar("Contents")


def server_credentials(files: ServerTls) -> grpc.ServerCredentials:
    """For a port; each new connection sees the files as they are then.

    Raises:
        ConfigError: a file cannot be read, or key and certificate are no pair.
    """
    certificates = ServerCertificates(files, _configuration)
    return grpc.dynamic_ssl_server_credentials(
        certificates.current,
        certificates.fetch,  # type: ignore[arg-type]  # its stubs know nothing of None, "no change"
        require_client_authentication=bool(files.client_ca_file),
    )


def client_credentials(files: ClientTls) -> grpc.ChannelCredentials:
    """For a channel, which keeps what the files hold now.

    Raises:
        ConfigError: a file cannot be read, or key and certificate are no pair.
    """
    try:
        context = ssl.create_default_context(cafile=files.ca_file)
        if not files.certificate_file:
            return grpc.ssl_channel_credentials(Path(files.ca_file).read_bytes())
        context.load_cert_chain(files.certificate_file, files.key_file, password="")
        return grpc.ssl_channel_credentials(
            Path(files.ca_file).read_bytes(),
            Path(files.key_file).read_bytes(),
            Path(files.certificate_file).read_bytes(),
        )
    except (OSError, ValueError) as error:
        names = ", ".join(filter(None, (files.ca_file, files.certificate_file, files.key_file)))
        raise ConfigError(f"cannot use TLS with {names}: {_reason(error)}") from None


def server_context(files: ServerTls) -> ssl.SSLContext:
    """What Python's own servers serve with; it keeps what the files hold now.

    Raises:
        OSError: a file cannot be read, or key and certificate are no pair.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate_file, files.key_file, password="")
    if files.client_ca_file:
        context.load_verify_locations(files.client_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    # A session that is resumed would be one with the certificates of before.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    return context


class ServerCertificates(Generic[Contents]):
    """The last good contents of a server's files."""

    def __init__(self, files: ServerTls, read: Callable[[ServerTls], Contents]) -> None:
        """Reads them.

        Args:
            files: where they are.
            read: what to make of them; raises OSError or ValueError where they are not good.

        Raises:
            ConfigError: a file cannot be read, or key and certificate are no pair.
        """
        self._files, self._read_files = files, read
        self._paths = [path for path in (files.certificate_file, files.key_file, files.client_ca_file) if path]
        try:
            self._stamp = self._look()
            self.current = read(files)
        except (OSError, ValueError) as error:  # what ssl raises is an OSError
            raise ConfigError(f"cannot serve TLS with {', '.join(self._paths)}: {_reason(error)}") from None

    def fetch(self) -> Contents | None:
        """The new contents where they have changed and are good, else None. gRPC asks before every handshake.

        Runs on threads, never on the event loop. Raises nothing: old certificates are better than none, and
        files that are replaced one by one are no pair for a moment.
        """
        try:
            stamp = self._look()
            if stamp == self._stamp:
                return None
            certificates = self._read_files(self._files)
            if self._look() != stamp:
                return None  # changed again meanwhile; the next connection looks anew
        except (OSError, ValueError) as error:
            logger.error("keeps the TLS certificates of before: %s", _reason(error))
            return None
        self._stamp, self.current = stamp, certificates
        logger.info("serves new TLS certificates")
        return certificates

    def _look(self) -> Stamp:
        stats = [os.stat(path) for path in self._paths]
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)


def _configuration(files: ServerTls) -> grpc.ServerCertificateConfiguration:
    server_context(files)  # gRPC itself would find out at the first handshake
    pair = (Path(files.key_file).read_bytes(), Path(files.certificate_file).read_bytes())
    authorities = Path(files.client_ca_file).read_bytes() if files.client_ca_file else None
    return grpc.ssl_server_certificate_configuration([pair], authorities)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
