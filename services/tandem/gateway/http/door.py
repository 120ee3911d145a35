"""The door itself: a listening socket, and the server behind it, inside the gateway's own event loop."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import ASGIApp

from tandem.core.errors import ConfigError
from tandem.gateway.http.certificates import FollowedCertificates
from tandem.gateway.http.connection import Connection
from tandem.gateway.http.guard import Guard
from tandem.rpc.server import MAX_METADATA_BYTES
from tandem.rpc.tls_files import ServerTls

IDLE_SECONDS = 75  # longer than clients and proxies keep a connection that they may use again
LAST_WORDS_SECONDS = 1
BACKLOG = 2048


@asynccontextmanager
async def open_door(app: ASGIApp, guard: Guard, listen: str, tls: ServerTls | None) -> AsyncIterator[str]:
    """Serves `app` while inside; gives the address with the port in force, or nothing where `listen` is empty.

    Requests that are left at the end are cut off.

    Args:
        app: what answers.
        guard: knows the requests that run.
        listen: `host:port`; port 0 takes a free one; empty: nobody is served.
        tls: what clients are shown; None: plain text.

    Raises:
        ConfigError: nothing can listen there.
    """
    if not listen:
        yield ""
        return
    certificates = FollowedCertificates(tls) if tls else None
    listening = _bind(listen)
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # what peers do wrong is no news
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=LAST_WORDS_SECONDS,
        h11_max_incomplete_event_size=MAX_METADATA_BYTES,
        reset_contextvars=True,
        ssl_context_factory=(lambda _config, _default: certificates.context) if certificates else None,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listening])
    tasks = [asyncio.create_task(server.main_loop())]
    if certificates:
        tasks.append(asyncio.create_task(certificates.follow()))
    try:
        yield f"{listen.rpartition(':')[0]}:{listening.getsockname()[1]}"
    finally:
        guard.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.shutdown(sockets=[listening])


def _bind(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    if not (host and port.isdecimal() and int(port) <= 65535):
        raise ConfigError(f"cannot serve HTTP on {listen!r}: expected HOST:PORT")
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise ConfigError(f"cannot serve HTTP on {listen}: {error.strerror}") from None
    return listening
