"""Calls that were refused before they began are made again, as the service config and the server say."""

import functools
import time

import grpc
import pytest

from clients.python.tests.fake_server import answered, delta, started
from tandem_client import Client, Exhausted, InvalidRequest, Unavailable

PUSHBACK = "grpc-retry-pushback-ms"


@pytest.fixture
def generate(call):
    return functools.partial(call, "generate", "hello")


def refused(code, *trailers):
    def answer(context):
        context.set_trailing_metadata(trailers)
        context.abort(code, "not now")

    return answer


def waits(server):
    """Seconds between the attempts."""
    times = [time for time, _ in server.attempts]
    return [after - before for before, after in zip(times, times[1:], strict=False)]


def test_an_unavailable_server_is_asked_again(server, generate):
    server.answers = [refused(grpc.StatusCode.UNAVAILABLE)] * 2 + [answered]
    assert generate().text == "done"
    assert [metadata.get("grpc-previous-rpc-attempts") for _, metadata in server.attempts] == [None, "1", "2"]
    first, second = waits(server)
    assert first >= 0.15 and second >= 0.3, "it backs off"


def test_a_full_server_says_when_it_is_asked_again(server, generate):
    server.answers = [refused(grpc.StatusCode.RESOURCE_EXHAUSTED, (PUSHBACK, "700")), answered]
    assert generate().text == "done"
    assert 0.7 <= waits(server)[0] < 2


def test_a_server_may_ask_not_to_be_asked_again(server, generate):
    server.answers = [refused(grpc.StatusCode.RESOURCE_EXHAUSTED, (PUSHBACK, "-1")), answered]
    with pytest.raises(Exhausted):
        generate()
    assert len(server.attempts) == 1


def test_it_gives_up_after_some_attempts(server, generate):
    server.answers = [refused(grpc.StatusCode.UNAVAILABLE, (PUSHBACK, "1"))]
    with pytest.raises(Unavailable):
        generate()
    assert len(server.attempts) == 4


def test_retries_can_be_turned_off(server, generate):
    server.answers = [refused(grpc.StatusCode.UNAVAILABLE), answered]
    with pytest.raises(Unavailable):
        generate(settings={"max_attempts": 1})
    assert len(server.attempts) == 1


def test_a_bad_request_is_not_sent_again(server, generate):
    server.answers = [refused(grpc.StatusCode.INVALID_ARGUMENT), answered]
    with pytest.raises(InvalidRequest):
        generate()
    assert len(server.attempts) == 1


def test_a_text_that_has_begun_is_not_begun_again(server):
    def broken_off(context):
        yield started()
        yield delta("one")
        context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    server.answers = [broken_off]
    with Client(server.address) as client:
        stream = client.stream("hello")
        assert next(stream).text == "one"
        with pytest.raises(Unavailable):
            next(stream)
    time.sleep(0.3)  # more than the first backoff
    assert len(server.attempts) == 1
