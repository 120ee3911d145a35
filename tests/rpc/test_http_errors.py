"""Every row of the error table as the official client sees it, and what is refused before any row applies."""

import asyncio
import json
import logging

import httpx2
import openai as package
import pytest
from grpc_health.v1 import health_pb2

from tandem.core import errors
from tandem.gateway.http import call
from tandem.gateway.http.errors import HTTP_STATUSES, refusal_of
from tandem.rpc.errors import STATUS_CODES
from tandem.rpc.server import NOTICE_SECONDS
from tests.rpc.fake_verifier import finished, serving, started, verified

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
ASKED = {"model": "", "prompt": "the fox"}
JSON = {"content-type": "application/json"}

RAISED = [
    (errors.InvalidRequest("spec.sampling.top_p", "is odd"), package.BadRequestError, "invalid_request"),
    (errors.QueueFull("full", 2.5), package.RateLimitError, "queue_full"),
    (errors.KvCacheFull("full", 2.5), package.RateLimitError, "kv_cache_full"),
    (errors.Loading("not yet", 2.5), package.InternalServerError, "loading"),
    (errors.Draining("no more", 2.5), package.InternalServerError, "draining"),
    (errors.DeadlineExceeded("too late"), package.InternalServerError, "deadline_exceeded"),
    (errors.EngineFault("the secret broke"), package.InternalServerError, "engine_fault"),
    (OSError(2, "No such file", "/dev/shm/secret"), package.InternalServerError, "engine_fault"),
]
STATUSES = [400, 429, 429, 503, 503, 504, 500, 500]


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(("row", "status"), list(zip(RAISED, STATUSES, strict=True)), ids=str)
async def test_what_a_verifier_refuses_with(openai, fake, row, status, is_stream):
    error, kind, code = row

    async def script(request):
        raise error
        yield

    fake.script = script
    with pytest.raises(kind) as caught:
        await openai.completions.create(**ASKED, stream=is_stream)
    seen, response = caught.value, caught.value.response
    assert (seen.status_code, seen.code) == (status, code), "a stream is refused before it begins"
    assert seen.param == ("top_p" if status == 400 else None)
    assert "secret" not in response.text
    if isinstance(error, errors.RetryableError):
        assert (response.headers["retry-after"], response.headers["retry-after-ms"]) == ("3", "2500")
    if status == 500:
        assert response.headers["x-request-id"] in seen.message


async def test_other_rows(openai, open_client):
    with pytest.raises(package.NotFoundError) as caught:
        await openai.completions.create(**{**ASKED, "model": "another"})
    assert caught.value.code == "model_not_found"
    async with open_client(verifier="unix:/nowhere") as client, client.openai() as lonely:
        with pytest.raises(package.InternalServerError) as caught:
            await lonely.models.list()
        assert (caught.value.status_code, caught.value.code) == (503, "no_replica")


def test_the_table_has_every_code_and_every_error():
    assert set(HTTP_STATUSES) == set(STATUS_CODES.values())
    for kind in STATUS_CODES:
        error = kind("spec.text", "x") if kind is errors.InvalidRequest else kind("x")
        assert refusal_of(error, "r").status == HTTP_STATUSES[STATUS_CODES[kind]][0]


async def test_an_error_after_the_stream_began_is_its_last_event(client, openai, fake, caplog):
    caplog.set_level(logging.INFO, logger="tandem")

    async def script(request):
        yield started()
        yield verified([70, 71])
        raise errors.EngineFault("the secret broke")

    fake.script = script
    async with httpx2.AsyncClient(base_url=client.url) as http:
        response = await http.post("/v1/completions", json={**ASKED, "stream": True})
    *_, text, last = [json.loads(event.removeprefix("data: ")) for event in response.text.strip().split("\n\n")]
    assert text["choices"][0]["text"] and last["error"]["code"] == "engine_fault"
    assert "[DONE]" not in response.text and "secret" not in response.text
    with pytest.raises(package.APIError) as caught:
        async for _ in await openai.completions.create(**ASKED, stream=True):
            pass
    assert caught.value.code == "engine_fault"
    shown = client.gateway.metrics.distributions()
    codes = [labels["http_response_status_code"] for metric, labels, _ in shown if metric.name == "tandem_http_seconds"]
    assert codes == ["500"]
    assert any("failed" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions", 405),
        ("OPTIONS", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/v1/embeddings", 404),
        ("GET", "/healthz/", 404),
        ("GET", "/v1/../healthz/x", 404),
        ("POST", "/tandem.v1.GenerationService/Generate", 404),
    ],
)
async def test_paths_and_methods_that_are_not_served(client, method, path, status):
    async with httpx2.AsyncClient(base_url=client.url) as http:
        response = await http.request(method, path)
    assert response.status_code == status and response.json()["error"]["code"] in ("not_found", "method_not_allowed")
    assert "access-control-allow-origin" not in response.headers
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_bodies_that_are_not_read_to_their_end(open_client, verifier, fake, monkeypatch):
    monkeypatch.setattr(call, "BODY_SECONDS", 0.2)
    async with open_client(max_message_bytes=1000) as client, httpx2.AsyncClient(base_url=client.url) as http:
        await client.wait_for_health(SERVING)
        path = "/v1/completions"

        async def chunks():  # without a length of its own
            for _ in range(100):
                yield b" " * 100

        async def slow():
            yield b"{"
            await asyncio.sleep(1)

        for content in (b" " * 1001, chunks()):
            response = await http.post(path, content=content, headers=JSON)
            assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")
        response = await http.post(path, content=slow(), headers=JSON)
        assert (response.status_code, response.json()["error"]["code"]) == (408, "request_timeout")
        for kind in ({}, {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}):
            response = await http.post(path, content=b"{}", headers=kind)
            assert (response.status_code, response.json()["error"]["code"]) == (415, "unsupported_media_type")
        assert (await http.post(path, json=ASKED)).status_code == 200 and len(fake.requests) == 1


async def test_health_is_open_and_follows_the_verifiers(open_client, fake, verifier_address, tmp_path):
    (tmp_path / "keys").write_text("key\n")
    async with (
        serving(fake, verifier_address, is_serving=False) as verifier,
        open_client(api_keys_file=str(tmp_path / "keys")) as client,
        httpx2.AsyncClient(base_url=client.url) as http,
    ):
        assert (await http.get("/healthz")).status_code == 503
        verifier.set_serving(True)
        await client.wait_for_health(SERVING)
        assert (await http.get("/healthz")).json() == {"status": "serving"}
        verifier.set_serving(False)
        await client.wait_for_health(NOT_SERVING)
        assert (await http.get("/healthz")).status_code == 503


async def test_draining_lets_streams_end_and_refuses_new_ones(client, openai, fake):
    go_on = asyncio.Event()

    async def script(request):
        yield started()
        await go_on.wait()
        yield verified([70])
        yield finished()

    fake.script = script
    stream = await openai.completions.create(**ASKED, stream=True)
    await anext(stream)
    stopping = asyncio.create_task(client.server.stop(5))
    await asyncio.sleep(0.02)
    with pytest.raises(package.InternalServerError) as caught:
        await openai.completions.create(**ASKED)
    assert caught.value.code == "draining"
    async with httpx2.AsyncClient(base_url=client.url) as http:
        assert (await http.get("/healthz")).status_code == 503
    await asyncio.sleep(2 * NOTICE_SECONDS)
    assert not stopping.done(), "it waits for what runs over HTTP"
    go_on.set()
    assert [chunk.choices[0].finish_reason async for chunk in stream][-1] == "length"
    async with asyncio.timeout(2):
        await stopping


async def test_who_is_left_when_the_door_closes_is_told(open_client, verifier, fake):
    async def script(request):
        yield started()
        await asyncio.Event().wait()

    fake.script = script
    opened = open_client()
    client = await opened.__aenter__()
    await client.wait_for_health(SERVING)
    async with client.openai() as openai:
        stream = await openai.completions.create(**ASKED, stream=True)
        await anext(stream)
        unary = asyncio.create_task(openai.completions.create(**ASKED))
        while fake.num_running < 2:
            await asyncio.sleep(0.01)
        reading = asyncio.create_task(anext(stream))
        closing = asyncio.create_task(opened.__aexit__(None, None, None))
        for left in (reading, unary):
            with pytest.raises(package.APIError) as caught:
                await left
            assert caught.value.code == "draining"
        async with asyncio.timeout(2):
            await closing
            await fake.idle.wait()
