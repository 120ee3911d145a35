"""What a channel is opened with, the same for both clients."""

import json
from dataclasses import dataclass

import grpc

from tandem_client.tls import Tls

DEFAULT_ADDRESS = "127.0.0.1:8700"
DEFAULT_MAX_ATTEMPTS = 4
UNIX_PREFIX = "unix:"
SERVICES = ("tandem.v1.GenerationService", "tandem.v1.ModelService")
# Log-probabilities of a long answer come as one message.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
KEEPALIVE_SECONDS = 30
KEEPALIVE_TIMEOUT_SECONDS = 10

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a server is, and what it is shown.

    Raises:
        ValueError: TLS over a Unix socket, which has none, or no attempt at all.
    """

    address: str  # host:port or unix:/path
    api_key: str | None
    tls: Tls | None
    max_attempts: int

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        if self.tls and self.address.startswith(UNIX_PREFIX):
            raise ValueError("a Unix socket has no TLS")
        if self.max_attempts < 1:
            raise ValueError("max_attempts must be at least 1")

    def options(self) -> list[tuple[str, str | int]]:
        """Arguments of the channel."""
        options: list[tuple[str, str | int]] = [
            ("grpc.service_config", service_config(self.max_attempts)),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
        ]
        if self.address.startswith(UNIX_PREFIX):
            # Without it the socket's path is sent as :authority, which many servers refuse.
            options.append(("grpc.default_authority", "localhost"))
        if self.tls and self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options

    def credentials(self) -> grpc.ChannelCredentials | None:
        """What a secure channel is opened with; None: plain text.

        Raises:
            OSError: a file of TLS cannot be read.
        """
        if self.tls is None:
            return None
        credentials = self.tls.credentials()
        if self.api_key is None:
            return credentials
        return grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(self.api_key))

    def metadata(self, traceparent: str | None = None) -> Metadata:
        """What goes with each call.

        Args:
            traceparent: the W3C trace context that the call belongs to.
        """
        metadata: Metadata = (("traceparent", traceparent),) if traceparent else ()
        if self.api_key is not None and self.tls is None:  # gRPC sends call credentials over TLS alone
            metadata += (("authorization", f"Bearer {self.api_key}"),)
        return metadata


def service_config(max_attempts: int) -> str:
    """gRPC's own retries: of calls that were refused before they began, never of a text that has begun.

    A server's `grpc-retry-pushback-ms` takes the place of the backoff. gRPC makes at most five attempts.
    """
    config: dict[str, object] = {"retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1}}
    if max_attempts > 1:
        policy = {
            "maxAttempts": max_attempts,
            "initialBackoff": "0.2s",
            "maxBackoff": "5s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
        }
        config["methodConfig"] = [{"name": [{"service": name} for name in SERVICES], "retryPolicy": policy}]
    return json.dumps(config)
