"""The numbers of a process on a port, as Prometheus scrapes them: text exposition format 0.0.4 over HTTP/1.1."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from tandem.core.errors import ConfigError
from tandem.telemetry.metrics import Metrics

MAX_REQUEST_BYTES = 8192
REQUEST_SECONDS = 5.0
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(metrics: Metrics) -> str:
    """Every metric of the service, those without a number yet by name alone."""
    lines: dict[str, list[str]] = {
        metric.name: [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind.value}"]
        for metric in metrics.table
    }
    for metric, labels, number in metrics.snapshot():
        lines[metric.name].append(_sample(metric.name, labels.items(), number))
    for metric, labels, seen in metrics.distributions():
        total = 0
        for bound, count in zip((*metric.bounds, math.inf), seen.counts, strict=True):
            total += count
            le = "+Inf" if math.isinf(bound) else f"{bound:g}"
            lines[metric.name].append(_sample(f"{metric.name}_bucket", [*labels.items(), ("le", le)], total))
        lines[metric.name].append(_sample(f"{metric.name}_sum", labels.items(), seen.total))
        lines[metric.name].append(_sample(f"{metric.name}_count", labels.items(), total))
    return "".join(f"{line}\n" for one in lines.values() for line in one)


@asynccontextmanager
async def scrape_port(metrics: Metrics, listen: str) -> AsyncIterator[str]:
    """A port that answers `GET /metrics`; gives its address.

    Args:
        metrics: to show.
        listen: `host:port`; port 0 takes a free one.

    Raises:
        ConfigError: nothing can listen there.
    """
    host, _, port = listen.rpartition(":")
    if not (host and port.isdecimal() and int(port) <= 65535):
        raise ConfigError(f"cannot show metrics on {listen!r}: expected HOST:PORT")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(head, metrics))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asks in such a way is not told anything
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(answer, host.strip("[]"), int(port), limit=MAX_REQUEST_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot show metrics on {listen}: {error.strerror}") from None
    try:
        yield f"{host}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def _response(head: bytes, metrics: Metrics) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if method not in (b"GET", b"HEAD"):
        status, body = "405 Method Not Allowed", b""
    elif path != b"/metrics":
        status, body = "404 Not Found", b""
    else:
        status, body = "200 OK", render(metrics).encode()
    header = f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\nConnection: close"
    return f"{header}\r\n\r\n".encode() + (b"" if method == b"HEAD" else body)


def _sample(name: str, labels: Iterable[tuple[str, str]], number: float) -> str:
    named = ",".join(f'{label}="{_escape(value)}"' for label, value in labels)
    return f"{name}{{{named}}} {number:.17g}" if named else f"{name} {number:.17g}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
