"""TLS by files: what a server shows, read again whenever it changes, and what a client shows."""

import logging
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from tandem.core.errors import ConfigError

logger = logging.getLogger(__name__)

# Of each file: what replaces a file, in place or by a symbolic link as secrets are mounted, changes one of them.
Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class ServerTls:
    """Files of a server, all PEM."""

    certificate_file: str  # the chain, own certificate first
    key_file: str
    client_ca_file: str  # authorities of client certificates, which are then required; empty: none are

    @classmethod
    def from_options(cls, certificate_file: str, key_file: str, client_ca_file: str) -> "ServerTls | None":
        """None where no file is named.

        Raises:
            ConfigError: some are named that need others.
        """
        if not (certificate_file or key_file or client_ca_file):
            return None
        if not (certificate_file and key_file):
            raise ConfigError("--tls-certificate-file and --tls-key-file go together, and with --tls-client-ca-file")
        return cls(certificate_file, key_file, client_ca_file)

    def credentials(self) -> grpc.ServerCredentials:
        """For a port; each new connection sees the files as they are then.

        Raises:
            ConfigError: a file cannot be read, or key and certificate are no pair.
        """
        certificates = ServerCertificates(self)
        return grpc.dynamic_ssl_server_credentials(
            certificates.current, certificates.fetch, require_client_authentication=bool(self.client_ca_file)
        )


class ServerCertificates:
    """The last good contents of a server's files."""

    def __init__(self, files: ServerTls) -> None:
        """Reads them.

        Raises:
            ConfigError: a file cannot be read, or key and certificate are no pair.
        """
        self._files = files
        self._paths = [path for path in (files.certificate_file, files.key_file, files.client_ca_file) if path]
        try:
            self._stamp = self._look()
            self.current = self._read()
        except (OSError, ValueError) as error:  # what ssl raises is an OSError
            raise ConfigError(f"cannot serve TLS with {', '.join(self._paths)}: {_reason(error)}") from None

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """The new contents where they have changed and are good, else None. gRPC asks before every handshake.

        Runs on threads of gRPC, never on the event loop. Raises nothing: old certificates are better than none, and
        files that are replaced one by one are no pair for a moment.
        """
        try:
            stamp = self._look()
            if stamp == self._stamp:
                return None
            certificates = self._read()
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

    def _read(self) -> grpc.ServerCertificateConfiguration:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._files.certificate_file, self._files.key_file, password="")
        if self._files.client_ca_file:
            context.load_verify_locations(self._files.client_ca_file)
        pair = (Path(self._files.key_file).read_bytes(), Path(self._files.certificate_file).read_bytes())
        authorities = Path(self._files.client_ca_file).read_bytes() if self._files.client_ca_file else None
        return grpc.ssl_server_certificate_configuration([pair], authorities)


@dataclass(frozen=True)
class ClientTls:
    """Files of a client, all PEM, and whom it expects."""

    ca_file: str  # authorities of the server's certificate
    certificate_file: str  # empty, with the key: shows none
    key_file: str
    server_name: str  # that the certificate must be for; empty: the host of the address

    @classmethod
    def from_options(cls, ca_file: str, certificate_file: str, key_file: str, server_name: str) -> "ClientTls | None":
        """None where no file is named.

        Raises:
            ConfigError: some are named that need others.
        """
        if not (ca_file or certificate_file or key_file or server_name):
            return None
        if not ca_file or bool(certificate_file) != bool(key_file):
            raise ConfigError(
                "TLS needs the file of the server's authorities (-ca-file); a certificate goes with its key"
            )
        return cls(ca_file, certificate_file, key_file, server_name)

    def credentials(self) -> grpc.ChannelCredentials:
        """For a channel, which keeps what the files hold now.

        Raises:
            ConfigError: a file cannot be read, or key and certificate are no pair.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if not self.certificate_file:
                return grpc.ssl_channel_credentials(Path(self.ca_file).read_bytes())
            context.load_cert_chain(self.certificate_file, self.key_file, password="")
            return grpc.ssl_channel_credentials(
                Path(self.ca_file).read_bytes(),
                Path(self.key_file).read_bytes(),
                Path(self.certificate_file).read_bytes(),
            )
        except (OSError, ValueError) as error:
            files = ", ".join(filter(None, (self.ca_file, self.certificate_file, self.key_file)))
            raise ConfigError(f"cannot use TLS with {files}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
