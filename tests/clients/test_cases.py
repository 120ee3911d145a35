"""Every client passes the same cases, against a live replica."""

import grpc
import pytest

from tandem.v1 import generation_service_pb2, generation_service_pb2_grpc, types_pb2
from tests.authority import Authority
from tests.clients.replica import KEY
from tests.e2e.conftest import wait_until

pytestmark = pytest.mark.timeout(300)  # the first case of a client waits until it is built

MAX_TOKENS = 900  # of the cases that are not meant to reach their end, some seconds of work
END_SECONDS = 3  # within which a replica has dropped what nobody waits for


@pytest.fixture(scope="session")
def expected(replica):
    """The text of the cases, by the stubs of the server's own package."""
    spec = types_pb2.GenerationSpec(
        text="def read_lines(path):",
        sampling=types_pb2.SamplingOptions(temperature=0.0),
        stopping=types_pb2.StoppingOptions(max_tokens=32),
    )
    with grpc.insecure_channel(replica.plain.address) as channel:
        stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
        return stub.Generate(generation_service_pb2.GenerateRequest(spec=spec)).output.text


def num_finished(replica, reason):
    return replica.number("tandem_requests_finished_total", reason=reason)


def check_stream(result, text):
    assert result["text"] == text
    assert result["num_tokens"] == 32 and result["finish_reason"] == "FINISH_REASON_LENGTH"
    assert 1 < result["num_messages"] <= 32 and 1 < result["num_rounds"] < 32
    assert result["request_id"]


def check_bad_request(result):
    description = result.pop("description")
    assert "between 0 and 100" in description
    expected = {"code": "INVALID_ARGUMENT", "reason": "INVALID_REQUEST", "domain": "tandem"}
    assert result == {**expected, "field": "spec.sampling.temperature"}


def test_stream(client, replica, expected):
    check_stream(client.run("stream", replica.plain), expected)


def test_its_own_tests(client):
    client.run_own_tests()


def test_unary(client, replica, expected):
    result = client.run("unary", replica.plain)
    assert result.pop("request_id")
    assert result == {"text": expected, "num_tokens": 32, "finish_reason": "FINISH_REASON_LENGTH"}


def test_cancel(client, replica):
    num_cancelled, num_complete = num_finished(replica, "cancelled"), num_finished(replica, "length")
    result = client.run("cancel", replica.plain)
    assert result["code"] == "CANCELLED" and 0 < result["num_tokens"] < MAX_TOKENS
    wait_until(lambda: replica.number("tandem_running_sequences") == 0, END_SECONDS)
    assert num_finished(replica, "cancelled") > num_cancelled and num_finished(replica, "length") == num_complete


def test_deadline(client, replica):
    num_complete = num_finished(replica, "length")
    assert client.run("deadline", replica.plain) == {"code": "DEADLINE_EXCEEDED"}
    # It may have passed before a runtime that is slow to start had sent anything.
    wait_until(lambda: replica.number("tandem_running_sequences") == 0, END_SECONDS)
    assert num_finished(replica, "length") == num_complete


def test_bad_request(client, replica):
    check_bad_request(client.run("bad_request", replica.plain))


def test_key(client, replica, expected):
    result = client.run("key", replica.secure)
    assert result["text"] and expected.startswith(result["text"])


@pytest.mark.parametrize("key", [None, f"{KEY}x"])
def test_wrong_key(client, replica, key):
    result = client.run("key", replica.secure, TANDEM_API_KEY=key)
    assert result == {"code": "UNAUTHENTICATED", "reason": "INVALID_API_KEY"}


def test_tls(client, replica, expected):
    check_stream(client.run("stream", replica.secure), expected)
    check_bad_request(client.run("bad_request", replica.secure))


def test_a_server_of_another_authority_is_not_trusted(client, replica, tmp_path):
    stranger = tmp_path / "stranger"
    Authority(stranger)
    ended = client.start("unary", replica.secure, TANDEM_CA_FILE=str(stranger / "ca.crt"))
    assert ended.returncode != 0 and ended.stderr and not ended.stdout


def test_unix_socket(client, replica, expected):
    if not client.has_unix:
        pytest.skip("this language has no Unix sockets")
    check_stream(client.run("stream", replica.unix), expected)
