"""Channels to other services, over Unix domain sockets and TCP."""

import grpc

from tandem.rpc.addresses import socket_path
from tandem.rpc.tls import client_credentials
from tandem.rpc.tls_files import ClientTls
from tandem.rpc.tracing import UnaryStreamTracing, UnaryUnaryTracing

# Prompts go up and log-probabilities come down these channels: more than a public client may send at once.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
KEEPALIVE_SECONDS = 20
KEEPALIVE_TIMEOUT_SECONDS = 10
MAX_RECONNECT_SECONDS = 2


def open_channel(
    address: str, max_message_bytes: int = MAX_MESSAGE_BYTES, tls: ClientTls | None = None
) -> grpc.aio.Channel:
    """A channel to `host:port` or `unix:/path`. It connects when first used, and again whenever that breaks.

    Args:
        address: of the server.
        max_message_bytes: largest message, in both directions.
        tls: how a server at `host:port` is known and who we are; None: plain text. Unix sockets have none.

    Raises:
        ConfigError: the files of `tls` are not what they should be.
    """
    options: list[tuple[str, str | int]] = [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # Windows stay at 64 KiB a stream. Grown ones would buffer megabytes for every reader that is slow, before the
        # sender notices.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_SECONDS * 1000),
        # Channels of one process share connections otherwise, and one that breaks would break the others' calls.
        ("grpc.use_local_subchannel_pool", 1),
        # No proxy of the environment stands between our own services.
        ("grpc.enable_http_proxy", 0),
    ]
    interceptors: list[grpc.aio.ClientInterceptor] = [UnaryStreamTracing(), UnaryUnaryTracing()]
    if socket_path(address):
        # Without it the socket's path is sent as :authority, which servers other than Python's refuse.
        options.append(("grpc.default_authority", "localhost"))
    elif tls:
        if tls.server_name:
            options.append(("grpc.ssl_target_name_override", tls.server_name))
        return grpc.aio.secure_channel(address, client_credentials(tls), options=options, interceptors=interceptors)
    return grpc.aio.insecure_channel(address, options=options, interceptors=interceptors)
