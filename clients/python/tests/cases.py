"""The cases that every client passes, as the tests of all clients run them: `cases.py CASE`.

Each is gone through twice, with the client and with the one for asyncio, and both have to say the same.
"""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from tandem_client import (
    AsyncClient,
    AsyncStream,
    Client,
    Delta,
    Generation,
    InvalidRequest,
    Options,
    Stream,
    TandemError,
    Tls,
)

PROMPT = "def read_lines(path):"
SHORT: Options = {"temperature": 0, "max_tokens": 32}
LONG: Options = {"temperature": 0, "max_tokens": 900, "ignore_eos": True}

Result = dict[str, Any]


def run(case: str, client: Client) -> Result:
    """What comes of a case.

    Raises:
        TandemError: it was refused, as some are meant to be.
    """
    match case:
        case "stream":
            with client.stream(PROMPT, **SHORT) as stream:
                return _of_stream(stream, list(stream))
        case "unary":
            return _of_generation(client.generate(PROMPT, **SHORT))
        case "cancel":
            with client.stream(PROMPT, **LONG) as stream:
                num_tokens = 0
                try:
                    for delta in stream:
                        num_tokens += delta.num_tokens
                        if delta.text:
                            stream.cancel()
                except TandemError as error:
                    return {"code": error.code.name, "num_tokens": num_tokens}
        case "deadline":
            client.generate(PROMPT, timeout_seconds=0.3, **LONG)
        case "bad_request":
            client.generate(PROMPT, temperature=-1)
        case "key":
            return {"text": client.generate(PROMPT, temperature=0, max_tokens=4).text}
    raise AssertionError(f"{case}: there is none, or it ended as if nothing had happened")


async def run_async(case: str, client: AsyncClient) -> Result:
    """The same with asyncio."""
    match case:
        case "stream":
            async with client.stream(PROMPT, **SHORT) as stream:
                return _of_stream(stream, [delta async for delta in stream])
        case "unary":
            return _of_generation(await client.generate(PROMPT, **SHORT))
        case "cancel":
            async with client.stream(PROMPT, **LONG) as stream:
                num_tokens = 0
                try:
                    async for delta in stream:
                        num_tokens += delta.num_tokens
                        if delta.text:
                            stream.cancel()
                except TandemError as error:
                    return {"code": error.code.name, "num_tokens": num_tokens}
        case "deadline":
            await client.generate(PROMPT, timeout_seconds=0.3, **LONG)
        case "bad_request":
            await client.generate(PROMPT, temperature=-1)
        case "key":
            return {"text": (await client.generate(PROMPT, temperature=0, max_tokens=4)).text}
    raise AssertionError(f"{case}: there is none, or it ended as if nothing had happened")


def main(case: str) -> None:
    """Prints what came of it."""
    result, async_result = _with_client(case), asyncio.run(_with_async_client(case))
    if _lasting(result) != _lasting(async_result):
        sys.exit(f"{result} with threads, {async_result} with asyncio")
    print(json.dumps(result))


def _with_client(case: str) -> Result:
    address, api_key, tls = _settings()
    with Client(address, api_key=api_key, tls=tls) as client:
        try:
            return run(case, client)
        except TandemError as error:
            return _of_error(case, error)


async def _with_async_client(case: str) -> Result:
    address, api_key, tls = _settings()
    async with AsyncClient(address, api_key=api_key, tls=tls) as client:
        try:
            return await run_async(case, client)
        except TandemError as error:
            return _of_error(case, error)


def _settings() -> tuple[str, str | None, Tls | None]:
    ca_file = os.environ.get("TANDEM_CA_FILE")
    address = os.environ.get("TANDEM_ADDRESS", "127.0.0.1:8700")
    return address, os.environ.get("TANDEM_API_KEY") or None, Tls(ca_file) if ca_file else None


def _of_stream(stream: Stream | AsyncStream, deltas: Sequence[Delta]) -> Result:
    return {
        "text": "".join(delta.text for delta in deltas),
        "num_messages": sum(bool(delta.text) for delta in deltas),
        "num_tokens": sum(delta.num_tokens for delta in deltas),
        "finish_reason": f"FINISH_REASON_{stream.finished.reason.name}",
        "num_rounds": stream.finished.speculation.num_rounds,
        "request_id": stream.started.request_id,
    }


def _of_generation(generation: Generation) -> Result:
    return {
        "text": generation.text,
        "num_tokens": generation.output.num_tokens,
        "finish_reason": f"FINISH_REASON_{generation.finished.reason.name}",
        "request_id": generation.started.request_id,
    }


def _of_error(case: str, error: TandemError) -> Result:
    match case:
        case "deadline":
            return {"code": error.code.name}
        case "bad_request" if isinstance(error, InvalidRequest):
            told = {"domain": error.domain, "field": error.field, "description": error.description}
            return {"code": error.code.name, "reason": error.reason, **told}
        case "key":
            return {"code": error.code.name, "reason": error.reason}
    raise error


def _lasting(result: Result) -> Result:
    """A result without the values on which two runs need not agree."""
    passing = {"request_id", "num_messages", "num_rounds"} | ({"num_tokens"} if "code" in result else set())
    return {key: None if key in passing else value for key, value in result.items()}


if __name__ == "__main__":
    main(sys.argv[1])
