"""What goes with a call, and how one ends before its time."""

import asyncio
import threading

import pytest

from clients.python.tests.fake_server import answered, delta, started
from tandem_client import AsyncClient, Cancelled, Client, DeadlineExceeded, Tls
from tandem_client.connection import Connection

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def dropped(server):
    """A server whose stream never goes on after two words; set once its call is dropped."""
    dropped = threading.Event()

    def endless(context):
        context.add_callback(dropped.set)
        yield started()
        yield delta("one")
        yield delta("two")
        dropped.wait(10)

    server.answers = [endless]
    return dropped


def test_a_key_and_a_trace_travel_in_plain_text(server, call):
    server.answers = [answered]
    call("generate", "hello", settings={"api_key": "secret"}, traceparent=TRACEPARENT)
    call("generate", "hello")
    (_, first), (_, second) = server.attempts
    assert first["authorization"] == "Bearer secret" and first["traceparent"] == TRACEPARENT
    assert "authorization" not in second and "traceparent" not in second


def test_over_tls_the_key_is_left_to_the_channel(tmp_path):
    (tmp_path / "ca.pem").write_text("")
    assert Connection("a:1", "secret", Tls(tmp_path / "ca.pem"), 4).metadata() == ()


@pytest.mark.parametrize("settings", [{"address": "unix:/x", "tls": Tls()}, {"max_attempts": 0}])
def test_settings_that_cannot_work(settings):
    with pytest.raises(ValueError):
        Client(**settings)


def test_half_a_certificate_is_refused():
    with pytest.raises(ValueError, match="go together"):
        Tls(certificate_file="only")


def test_a_file_that_is_not_there():
    with pytest.raises(OSError):
        Client(tls=Tls(ca_file="/nowhere"))


def test_leaving_a_stream_cancels_it(server, dropped):
    with Client(server.address) as client:
        with client.stream("hello") as stream:
            assert next(stream).text == "one" and stream.started.request_id == "id"
            with pytest.raises(RuntimeError, match="not finished"):
                stream.finished  # noqa: B018
        assert dropped.wait(2)


def test_another_thread_may_cancel(server, dropped):
    with Client(server.address) as client, client.stream("hello") as stream:
        next(stream), next(stream)
        threading.Timer(0.1, stream.cancel).start()
        with pytest.raises(Cancelled):
            next(stream)
        assert dropped.wait(2)


async def test_another_task_may_cancel(server, dropped):
    async with AsyncClient(server.address) as client, client.stream("hello") as stream:
        await anext(stream), await anext(stream)
        asyncio.get_running_loop().call_later(0.1, stream.cancel)
        with pytest.raises(Cancelled):
            await anext(stream)
        assert await asyncio.to_thread(dropped.wait, 2)


async def test_a_task_that_is_cancelled_with_its_stream_ends_as_tasks_do(server, dropped):
    async with AsyncClient(server.address) as client, client.stream("hello") as stream:
        await anext(stream), await anext(stream)
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.05)
        stream.cancel()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading


async def test_a_task_that_is_cancelled_drops_its_call(server, dropped):
    async with AsyncClient(server.address) as client:
        stream = client.stream("hello")
        await anext(stream), await anext(stream)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.1)
        assert await asyncio.to_thread(dropped.wait, 2)


def test_a_deadline_ends_a_stream(server, dropped):
    with Client(server.address) as client:
        with pytest.raises(DeadlineExceeded):
            list(client.stream("hello", timeout_seconds=0.3))
        assert dropped.wait(2)
