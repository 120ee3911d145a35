"""Which gateway a client command calls."""

from dataclasses import dataclass

from tandem.core.config import option


@dataclass(frozen=True)
class ClientConfig:
    """Settings of every command that calls a gateway."""

    server: str = option("127.0.0.1:8700", help="the gateway's HOST:PORT or unix:/PATH")
    api_key_file: str | None = option(None, help="file with the API key to send; the first line that is one counts")
