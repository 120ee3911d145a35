"""One request over HTTP: its head, its body within bounds, and the ways to answer it."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from tandem.gateway.http.errors import Refusal, too_large

BODY_SECONDS = 30.0
JSON_TYPE = "application/json"
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
# A proxy that collects a stream before it passes it on would undo it.
STREAM_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"}


class ClientGone(Exception):
    """Nobody is left to be answered."""


class HttpCall:
    """The request that this task serves. One answer is given: `send_json`, or a stream of events."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves what the server received."""
        self.scope = scope
        self.headers = Headers(scope=scope)
        self.given_request_id = self.headers.get("x-request-id", "")
        self.request_id = ""  # in force, which every answer names
        self.status: int | None = None  # of an answer that began
        self._receive = receive
        self._send = send

    async def body(self, max_bytes: int) -> bytes:
        """The whole body.

        Raises:
            Refusal: it is none of JSON, too long, or too slow.
            ClientGone: it broke off.
        """
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != JSON_TYPE:  # a page of another site could send anything else without being asked
            raise Refusal(415, "invalid_request_error", "unsupported_media_type", f"send content-type: {JSON_TYPE}")
        declared = self.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > max_bytes:
            raise too_large(max_bytes)
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await self._next()
                    body += message.get("body", b"")
                    if len(body) > max_bytes:
                        raise too_large(max_bytes)
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise Refusal(
                408, "timeout_error", "request_timeout", f"the body took more than {BODY_SECONDS:g} s"
            ) from None

    @asynccontextmanager
    async def while_connected(self) -> AsyncIterator[None]:
        """Ends what is done inside as soon as the client goes away. The body is read before.

        Raises:
            ClientGone: it went.
        """
        task = asyncio.current_task()
        assert task
        is_gone = False

        async def watch() -> None:
            nonlocal is_gone
            while (await self._receive())["type"] != "http.disconnect":
                pass
            is_gone = True
            task.cancel()

        watching = asyncio.create_task(watch())
        try:
            yield
        except asyncio.CancelledError:
            if not is_gone:
                raise
            task.uncancel()
            raise ClientGone from None
        finally:
            watching.cancel()

    async def send_json(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """Answers with one object."""
        text = _encoded(body)
        fields = {"content-type": JSON_TYPE, "content-length": str(len(text)), **(headers or {})}
        await self._start(status, fields)
        await self._send({"type": "http.response.body", "body": text})

    async def start_stream(self) -> None:
        """Begins a stream of events."""
        await self._start(200, STREAM_HEADERS)

    async def send_event(self, body: Any) -> None:
        """Sends the next event; waits where the reader is slow."""
        await self._send({"type": "http.response.body", "body": _event(_encoded(body)), "more_body": True})

    async def end_stream(self, *, is_complete: bool) -> None:
        """Ends a stream; one that breaks off does not say that it is done."""
        await self._send({"type": "http.response.body", "body": _event(b"[DONE]") if is_complete else b""})

    async def refuse(self, refusal: Refusal) -> None:
        """Answers with an error, as an answer of its own or as the last event of a stream."""
        if self.status is None:
            await self.send_json(refusal.status, refusal.body(), refusal.headers)
        else:
            await self.send_event(refusal.body())
            await self.end_stream(is_complete=False)

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        fields = {**HEADERS, "x-request-id": self.request_id, **headers}
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message


def _encoded(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
