"""Which gateway a client command calls, and how."""

from dataclasses import dataclass

from tandem.core.config import option
from tandem.rpc.tls_files import ClientTls


@dataclass(frozen=True)
class ClientConfig:
    """Settings of every command that calls a gateway.

    Raises:
        ConfigError: half of what TLS needs.
    """

    server: str = option("127.0.0.1:8700", help="the gateway's HOST:PORT or unix:/PATH")
    api_key_file: str | None = option(None, help="file with the API key to send; the first line that is one counts")
    server_ca_file: str = option("", help="authorities (PEM) that the gateway's certificate comes from; empty: no TLS")
    server_certificate_file: str = option("", help="certificate chain (PEM) that the gateway is shown")
    server_key_file: str = option("", help="key (PEM) of that certificate")
    server_tls_name: str = option("", help="name in the gateway's certificate; empty: the host of --server")

    def __post_init__(self) -> None:
        """Refuses half of what TLS needs."""
        assert self.tls is None or self.tls.ca_file

    @property
    def tls(self) -> ClientTls | None:
        """What the gateway is shown, and asked to show; None: plain text."""
        return ClientTls.from_options(
            self.server_ca_file, self.server_certificate_file, self.server_key_file, self.server_tls_name
        )
