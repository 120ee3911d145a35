"""Which files TLS takes, as configuration names them. Nothing here loads grpc: help has to come at once."""

from dataclasses import dataclass

from tandem.core.errors import ConfigError


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
                "TLS needs --verifier-ca-file (of a client: --server-ca-file); a certificate goes with its key"
            )
        return cls(ca_file, certificate_file, key_file, server_name)
