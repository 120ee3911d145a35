"""The compose files, by what the real commands take."""

import importlib
import re

import pytest
import yaml

from tandem.cli.parser import Parser, load_config
from tandem.drafter.config import DrafterConfig
from tandem.gateway.config import GatewayConfig
from tandem.rpc.addresses import UNIX_PREFIX
from tandem.verifier.config import VerifierConfig
from tests.deploy.chart import ROOT

DEPLOY = ROOT / "deploy"
CONFIGS = {"gateway": GatewayConfig, "verifier": VerifierConfig, "drafter": DrafterConfig}


def services(*files):
    """Services of the first file with those of the others over them, key by key; of maps within, too."""

    def over(below, above):
        both = isinstance(below, dict) and isinstance(above, dict)
        return {k: over(below.get(k), above.get(k, below.get(k))) for k in below | above} if both else above

    merged = {}
    for file in files:
        merged = over(merged, yaml.safe_load((DEPLOY / file).read_text())["services"])
    return merged


def settings(service):
    """A service's command as its process reads it."""
    name, *arguments = (re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", argument) for argument in service["command"])
    parser = Parser(prog=name)
    importlib.import_module(f"tandem.cli.{name}").configure(parser)
    return load_config(CONFIGS[name], parser.parse_args(arguments), environment={})


@pytest.mark.parametrize("files", [("compose.yaml",), ("compose.yaml", "compose.gpu.yaml")], ids=["cpu", "gpu"])
def test_services_find_each_other(files):
    all = services(*files)
    gateway, verifier, drafter = (settings(all[name]) for name in CONFIGS)
    assert verifier.drafter == drafter.listen and drafter.listen.startswith(
        f"{UNIX_PREFIX}{verifier.exchange_directory}/"
    )
    assert gateway.tokenizer == verifier.target == drafter.target
    assert gateway.verifier == f"dns:verifier:{verifier.listen.rpartition(':')[2]}"
    doors = {"8700": gateway.listen, "8720": gateway.http_listen}
    assert all["gateway"]["ports"] == [
        f"127.0.0.1:{port}:{listen.rpartition(':')[2]}" for port, listen in doors.items()
    ]
    assert verifier.device == drafter.device == ("cuda" if len(files) == 2 else "cpu")
    for name in ("verifier", "drafter"):
        assert "run:/run/tandem" in all[name]["volumes"]
    for name, service in all.items():
        assert service["read_only"] and service["user"] == "65532:65532" and service["cap_drop"] == ["ALL"], name
        grace = float(service["stop_grace_period"].removesuffix("s"))
        assert grace > settings(service).drain_seconds + 5
        assert service["build"]["target"] == name
        target = re.search(rf"^FROM \S+ AS {name}$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
        assert target


def test_a_verifier_is_reached_by_gateways_alone():
    all = services("compose.yaml")
    assert "ports" not in all["verifier"] and "replica" not in all["drafter"]["networks"]
    assert yaml.safe_load((DEPLOY / "compose.yaml").read_text())["networks"]["replica"] == {"internal": True}


def test_on_a_gpu_both_processes_see_each_other():
    all = services("compose.yaml", "compose.gpu.yaml")
    assert all["drafter"]["pid"] == all["drafter"]["ipc"] == "service:verifier"
    assert all["verifier"]["deploy"] == all["drafter"]["deploy"] and all["verifier"]["ipc"] == "shareable"
    for name in ("verifier", "drafter"):
        assert all[name]["build"]["args"] == {"DEVICE": "cuda"} and all[name]["image"].endswith(":cuda")


def test_what_services_send_reaches_the_backend():
    collector = yaml.safe_load((DEPLOY / "otel-collector.yaml").read_text())
    port = collector["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].rpartition(":")[2]
    all = services("compose.yaml", "compose.telemetry.yaml")
    for name in CONFIGS:
        environment = all[name]["environment"]
        assert environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == f"http://collector:{port}" and "HF_TOKEN" in environment
        assert environment["OTEL_SERVICE_NAME"] == f"tandem-{name}"
        assert set(all[name]["networks"]) & set(all["collector"]["networks"])
    for signal in ("traces", "metrics", "logs"):
        pipeline = collector["service"]["pipelines"][signal]
        for part in ("receivers", "processors", "exporters"):
            assert pipeline[part] and collector[part].keys() >= set(pipeline[part])
    given = re.findall(r"\$\{env:(\w+)\}", (DEPLOY / "otel-collector.yaml").read_text())
    assert all["collector"]["environment"].keys() == set(given)
