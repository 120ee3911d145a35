"""How a server proves who it is, and how we do."""

import os
from dataclasses import dataclass
from pathlib import Path

import grpc

Filename = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM; they are read when a client is made.

    Raises:
        ValueError: a certificate without its key, or a key without its certificate.
    """

    ca_file: Filename | None = None  # authorities of the server's certificate; None: those that gRPC trusts
    certificate_file: Filename | None = None  # our own chain, where the server asks for one
    key_file: Filename | None = None  # its key
    server_name: str = ""  # name in the server's certificate; empty: the host of the address

    def __post_init__(self) -> None:
        """Refuses half a pair."""
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")

    def credentials(self) -> grpc.ChannelCredentials:
        """For a channel.

        Raises:
            OSError: a file cannot be read.
        """
        return grpc.ssl_channel_credentials(
            _read(self.ca_file), private_key=_read(self.key_file), certificate_chain=_read(self.certificate_file)
        )


def _read(path: Filename | None) -> bytes | None:
    return Path(path).read_bytes() if path is not None else None
