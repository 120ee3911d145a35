"""A port that tells a server's health and nothing else, for probes that know neither TLS nor Unix sockets."""

import grpc
from grpc_health.v1 import health_pb2_grpc

from tandem.core.errors import ConfigError
from tandem.rpc.health import Health

MAX_MESSAGE_BYTES = 4096
MAX_CONCURRENT_STREAMS = 16  # a connection


async def open_health_port(health: Health, listen: str) -> grpc.aio.Server:
    """A server of its own that answers with `health`, in plain text.

    Args:
        health: the state to tell.
        listen: `host:port`.

    Raises:
        ConfigError: nothing can listen there.
    """
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.aio.server(options=options)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError:
        port = 0
    if port == 0:
        raise ConfigError(f"cannot tell health on {listen}: is the address right, and free?")
    await server.start()
    return server
