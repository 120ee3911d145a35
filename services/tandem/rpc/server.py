"""A gRPC server as every service runs it: limits, TLS, health, reflection, and an orderly start and stop."""

import asyncio
import os
import socket
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tandem.core.errors import ConfigError
from tandem.rpc import health
from tandem.rpc.addresses import UNIX_PREFIX, socket_path
from tandem.rpc.drain import Drain
from tandem.rpc.health_port import open_health_port
from tandem.rpc.interceptors import DrainInterceptor, ErrorInterceptor
from tandem.rpc.tls import server_credentials
from tandem.rpc.tls_files import ServerTls
from tandem.rpc.tracing import TracingInterceptor
from tandem.telemetry.metrics import Metrics

MAX_METADATA_BYTES = 16 * 1024
# sun_path of Linux, with its closing zero.
MAX_SOCKET_PATH_BYTES = 107
# Clients that watch health have gone elsewhere by then, and others been refused: a call that arrives just as a server
# closes is cut off without a word.
NOTICE_SECONDS = 0.3
# What handlers said last still has to leave the process.
LAST_WORDS_SECONDS = 0.5

Servicer = TypeVar("Servicer")


@dataclass(frozen=True)
class ServerLimits:
    """What one client may take."""

    max_message_bytes: int = 4 * 1024 * 1024
    max_concurrent_streams: int = 256  # a connection


class RpcServer:
    """One listening server. Servicers raise; health says NOT_SERVING until told otherwise."""

    def __init__(
        self,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        limits: ServerLimits = ServerLimits(),
        tls: ServerTls | None = None,
        has_reflection: bool = False,
        metrics: Metrics | None = None,
    ) -> None:
        """Makes a server that listens nowhere yet.

        Args:
            interceptors: run after errors are caught and before handlers; they refuse by raising.
            limits: what one client may take.
            tls: what clients are shown; None: plain text. Unix sockets have none.
            has_reflection: whether callers may ask which services and messages there are.
            metrics: get the duration of each call; none: nobody looks at them.
        """
        self._tls = tls
        self._has_reflection = has_reflection
        self.drain = Drain()
        self._own_calls = DrainInterceptor(self.drain)
        tracing = TracingInterceptor(self._own_calls.services, metrics or Metrics())
        self._grpc = grpc.aio.server(
            interceptors=[tracing, ErrorInterceptor(), *interceptors, self._own_calls], options=_options(limits)
        )
        self._health: health.Health | None = None
        self._health_port: grpc.aio.Server | None = None
        self._on_stopping: list[Callable[[], None]] = []

    def add(self, register: Callable[[Servicer, grpc.aio.Server], None], servicer: Servicer, service: str) -> None:
        """Adds a servicer.

        Args:
            register: the generated `add_..._to_server`.
            servicer: what answers; it raises errors and is never asked to abort.
            service: full name, as in `tandem.v1.GenerationService`.
        """
        register(servicer, self._grpc)
        self._own_calls.services.add(service)

    def when_stopping(self, callback: Callable[[], None]) -> None:
        """Has `callback` called when `stop` begins, so that calls which would go on for ever can end in time."""
        self._on_stopping.append(callback)

    async def start(self, listen: str, health_listen: str = "") -> str:
        """Starts to listen, still NOT_SERVING; returns the address, with the port that a 0 became.

        Args:
            listen: `host:port`, or `unix:/path`: readable and writable by this user only.
            health_listen: `host:port` of one more port with health alone; empty: none.

        Raises:
            ConfigError: nothing can listen there.
        """
        self._health = health.Health(self._own_calls.services)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        if self._has_reflection:
            names = (*sorted(self._own_calls.services), health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._grpc)
        path = socket_path(listen)
        if path:
            self._bind_socket(path)
            address = listen
        else:
            address = self._bind_port(listen)
        await self._grpc.start()
        if health_listen:
            self._health_port = await open_health_port(self._health, health_listen)
        return address

    def set_serving(self, is_serving: bool) -> None:
        """Tells health watchers whether requests are welcome."""
        assert self._health, "start comes first"
        self._health.set_serving(is_serving)

    @property
    def is_serving(self) -> bool:
        """What health watchers were told last."""
        return self._health is not None and self._health.is_serving

    async def stop(self, grace_seconds: float) -> None:
        """Stops from outside in: NOT_SERVING, no new requests, time for those that run, and then no server.

        Args:
            grace_seconds: for requests that run; those that are left are cancelled. 0 cancels at once.
        """
        if self._health:
            self._health.end()
        self.drain.begin()
        for callback in self._on_stopping:
            callback()
        await asyncio.sleep(min(grace_seconds, NOTICE_SECONDS))
        try:
            await asyncio.wait_for(self.drain.wait_until_idle(), max(0.0, grace_seconds - NOTICE_SECONDS))
        except TimeoutError:
            pass
        await self._grpc.stop(min(grace_seconds, LAST_WORDS_SECONDS))
        if self._health_port:
            await self._health_port.stop(0)

    def _bind_port(self, listen: str) -> str:
        host, colon, port = listen.rpartition(":")
        if not (colon and host and port.isdecimal() and int(port) <= 65535):
            raise ConfigError(f"cannot listen on {listen!r}: expected HOST:PORT or {UNIX_PREFIX}/PATH")
        return f"{host}:{self._bind(listen, server_credentials(self._tls) if self._tls else None)}"

    def _bind_socket(self, path: Path) -> None:
        if not path.is_absolute() or len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            raise ConfigError(f"cannot listen on {path}: a socket's path is absolute and at most 107 bytes long")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = path.parent.stat().st_uid
            if owner not in (0, os.getuid()):
                raise ConfigError(f"cannot listen on {path}: its directory belongs to somebody else")
            _remove_stale(path)
        except OSError as error:
            raise ConfigError(f"cannot listen on {path}: {error.strerror}") from None
        # The mode is there from the first moment, not set after others could have connected.
        umask = os.umask(0o177)
        try:
            self._bind(f"{UNIX_PREFIX}{path}")
        finally:
            os.umask(umask)

    def _bind(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        try:
            if credentials:
                port = self._grpc.add_secure_port(address, credentials)
            else:
                port = self._grpc.add_insecure_port(address)
        except RuntimeError:
            port = 0
        if port == 0:
            raise ConfigError(f"cannot listen on {address}: is the address right, and free?")
        return port


def _options(limits: ServerLimits) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", limits.max_message_bytes),
        ("grpc.max_concurrent_streams", limits.max_concurrent_streams),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        # Who connects and says nothing, or half a TLS greeting, is let go.
        ("grpc.server_handshake_timeout_ms", 10_000),
        # Two processes on one port would share its requests by chance.
        ("grpc.so_reuseport", 0),
        # A client that is gone without a word is noticed; one that pings at a modest pace is welcome.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]


def _remove_stale(path: Path) -> None:
    """Removes the socket that a killed process left behind; refuses to take a living one's place."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"cannot listen on {path}: it exists and is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(0.5)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except TimeoutError:
            pass
    raise ConfigError(f"cannot listen on {path}: another process does")
