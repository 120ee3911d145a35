"""What a real replica tells of itself: a trace, numbers in both ways, and logs; all of it without a prompt."""

import json
import os
import shutil
import socket
import subprocess
import urllib.request
from pathlib import Path

import grpc
import pytest
from openai import OpenAI

from tandem.telemetry.metrics import METRICS
from tandem.v1 import generation_service_pb2, generation_service_pb2_grpc, types_pb2
from tests.e2e.conftest import SERVICES, Up, wait_until
from tests.otlp_receiver import receiver

ROOT = Path(__file__).parents[2]
PROMETHEUS = shutil.which("prometheus") or str(ROOT / ".tools/prometheus/usr/bin/prometheus")
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HTTP_TRACE_ID = "1bf7651916cd43dd8448eb211c80319c"
SECRET = "xylophone"
RPC = "tandem.v1.GenerationService/StreamGenerate"
INTERNAL_RPC = "tandem.internal.v1.VerifierService/Generate"

PARTS = [
    *(("tandem-gateway", name) for name in (RPC, "text_completion target", INTERNAL_RPC)),
    *(("tandem-verifier", name) for name in (INTERNAL_RPC, "queue", "prefill", "decode")),
    ("tandem-drafter", "draft"),
]


def free_ports(count):
    """The first of so many free ports in a row."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first = probe.getsockname()[1]
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue


class Replica:
    """A running replica that was asked for a text, for one that was dropped, and for one that was refused."""

    def __init__(self, up, received, first_port):
        self.up = up
        self.received = received
        self.ports = {"gateway": first_port, "verifier": first_port + 1, "drafter": first_port + 2}
        with grpc.insecure_channel(up.address) as channel:
            stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
            metadata = [("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01")]
            self.events = list(stub.StreamGenerate(_request(f"def {SECRET}(x):", 40), metadata=metadata))
            dropped = stub.StreamGenerate(_request("def f(x):", 2000))
            next(dropped), next(dropped)
            dropped.cancel()
            with pytest.raises(grpc.RpcError):
                next(stub.StreamGenerate(_request(f"# {SECRET}", 1_000_000), metadata=metadata))
        url = up.wait_for(r"^OpenAI's API is on (\S+)$")[1]
        with OpenAI(base_url=url, api_key="none", max_retries=0) as openai:
            headers = {"traceparent": f"00-{HTTP_TRACE_ID}-{PARENT_ID}-01"}
            asked = {"model": "", "prompt": f"def {SECRET}(x):", "max_tokens": 5}
            openai.completions.create(**asked, extra_headers=headers)
        wait_until(lambda: {*PARTS} <= {(service, span.name) for service, span in received.trace(TRACE_ID).values()})

    def page(self, service):
        """What Prometheus would read."""
        return urllib.request.urlopen(f"http://127.0.0.1:{self.ports[service]}/metrics", timeout=5).read().decode()


def _request(text, max_tokens):
    spec = types_pb2.GenerationSpec(
        text=text,
        request_id=f"request {max_tokens}",
        sampling=types_pb2.SamplingOptions(temperature=0.0),
        stopping=types_pb2.StoppingOptions(max_tokens=max_tokens, ignore_eos=True),
    )
    return generation_service_pb2.StreamGenerateRequest(spec=spec)


@pytest.fixture(scope="module")
def replica():
    with receiver() as (received, endpoint), pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        patch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "500")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        first_port = free_ports(3)
        ports = (f"--metrics-listen=127.0.0.1:{first_port}", "--http-listen=127.0.0.1:0")
        up = Up(*ports, "--log-format=json", "--log-level=debug")
        try:
            yield Replica(up, received, first_port)
        finally:
            up.close()


def expected(service, name):
    return {getattr(metric, name) for metric in METRICS if service in metric.services}


def test_one_trace_holds_client_gateway_verifier_and_drafter_in_order(replica):
    spans = replica.received.trace(TRACE_ID)

    def way(span):
        parent = spans.get(span.parent_span_id)
        return [*(way(parent[1]) if parent else [span.parent_span_id.hex()]), span.name]

    ways = {(service, *way(span)) for service, span in spans.values()}
    model = replica.events[0].started.model
    call = [PARENT_ID, RPC, f"text_completion {model}", INTERNAL_RPC]
    assert {
        ("tandem-gateway", *call[:2]),
        ("tandem-gateway", *call[:3]),
        ("tandem-gateway", *call),
        ("tandem-verifier", *call, INTERNAL_RPC),
        ("tandem-verifier", *call, INTERNAL_RPC, "queue"),
        ("tandem-verifier", *call, INTERNAL_RPC, "prefill"),
        ("tandem-verifier", *call, INTERNAL_RPC, "decode"),
        ("tandem-drafter", *call, INTERNAL_RPC, "draft"),
    } <= ways


def test_a_trace_through_the_http_door_is_the_same_further_in(replica):
    def spans():
        return {(service, span.name): span for service, span in replica.received.trace(HTTP_TRACE_ID).values()}

    further_in = {*PARTS} - {("tandem-gateway", RPC)}
    wait_until(lambda: further_in | {("tandem-gateway", "POST /v1/completions")} == spans().keys())
    outermost = spans()["tandem-gateway", "POST /v1/completions"]
    assert outermost.parent_span_id.hex() == PARENT_ID
    attributes = {one.key: one.value.string_value or one.value.int_value for one in outermost.attributes}
    assert (attributes["http.route"], attributes["http.response.status_code"]) == ("/v1/completions", 200)


def test_rounds_are_counts_and_events(replica):
    (decode,) = [span for _, span in replica.received.trace(TRACE_ID).values() if span.name == "decode"]
    counts = {one.key: one.value.int_value for one in decode.attributes}
    told = replica.events[-1].finished
    assert counts["tandem.rounds"] == len(decode.events) == told.speculation.num_rounds > 1
    assert counts["tandem.accepted_tokens"] == told.speculation.num_accepted_tokens > 0
    assert counts["gen_ai.usage.output_tokens"] == told.usage.num_output_tokens == 40
    assert {event.name for event in decode.events} == {"round"}


def test_every_service_sends_just_what_the_table_says(replica):
    wanted = {f"tandem-{service}": expected(service, "otlp_name") for service in SERVICES}
    wait_until(lambda: all(wanted[name] <= replica.received.metrics.get(name, set()) for name in wanted))
    assert replica.received.metrics == wanted


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_shows_just_what_the_table_says(replica, service):
    lines = replica.page(service).splitlines()
    assert {line.split()[2] for line in lines if line.startswith("# TYPE")} == expected(service, "name")
    shown = {line.partition("{")[0].split()[0] for line in lines if not line.startswith("#")}
    endings = ("_bucket", "_sum", "_count")
    plain = {next((name.removesuffix(end) for end in endings if name.endswith(end)), name) for name in shown}
    assert plain == expected(service, "name"), "each has a number"


def test_who_goes_away_is_counted_by_stage(replica):
    wait_until(lambda: 'tandem_requests_cancelled_total{stage="decode"} 1\n' in replica.page("verifier"))
    assert "tandem_gateway_streams 0\n" in replica.page("gateway")


def test_logs_name_request_and_trace(replica):
    records = [json.loads(line.partition("|")[2]) for line in replica.up.output.splitlines() if "| {" in line]
    (refused,) = [record for record in records if "refused" in record["message"]]
    assert (refused["service"], refused["request_id"]) == ("gateway", "request 1000000")
    assert refused["trace_id"] == TRACE_ID and len(refused["span_id"]) == 16


def test_no_output_holds_a_prompt(replica):
    text = "".join(event.delta.text for event in replica.events)
    assert SECRET not in replica.up.output and text not in replica.up.output
    for told in [*replica.received.raw, *map(replica.page, SERVICES)]:
        assert SECRET not in told and text not in told


@pytest.mark.skipif(not os.access(PROMETHEUS, os.X_OK), reason="needs Prometheus: make test-telemetry")
def test_prometheus_scrapes_the_services_and_takes_the_rules(replica, tmp_path):
    targets = [f"127.0.0.1:{port}" for port in replica.ports.values()]
    scrape = {"job_name": "tandem", "scrape_interval": "200ms", "static_configs": [{"targets": targets}]}
    rules = str(ROOT / "deploy/prometheus/rules.yaml")
    config = {"global": {"evaluation_interval": "200ms"}, "rule_files": [rules], "scrape_configs": [scrape]}
    (tmp_path / "prometheus.yaml").write_text(json.dumps(config))  # JSON is YAML
    address = f"127.0.0.1:{free_ports(1)}"
    process = subprocess.Popen(
        [
            PROMETHEUS, f"--config.file={tmp_path}/prometheus.yaml", f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address={address}",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def ask(path):
        try:
            return json.load(urllib.request.urlopen(f"http://{address}/api/v1/{path}", timeout=5))["data"]
        except OSError:
            return {}

    try:
        wait_until(lambda: [one["value"][1] for one in ask("query?query=up").get("result", [])] == ["1"] * 3)
        wait_until(lambda: ask("query?query=tandem_output_tokens_total").get("result"))
        wait_until(lambda: all(rule["health"] == "ok" for rule in _rules(ask)) and len(_rules(ask)) > 5)
    finally:
        process.kill()
        process.wait()


def _rules(ask):
    return [rule for group in ask("rules").get("groups", []) for rule in group["rules"]]
