"""The chart as a whole: what helm, the schemas of Kubernetes and its own schema say of it in every mode."""

import json
import re
from dataclasses import fields

import pytest
import yaml

from tandem.drafter.config import DrafterConfig
from tandem.gateway.config import GatewayConfig
from tandem.verifier.config import VerifierConfig
from tests.deploy.chart import CHART, HELMS, MODES, RELEASE, TOOLS, render, run, template, values_file

KUBERNETES = ("1.34", "1.37")  # the oldest that has all we ask for, and the newest whose schemas we have
CUSTOM = {"cert-manager.io", "gateway.networking.k8s.io", "keda.sh", "monitoring.coreos.com"}
MAX_TEMPLATE_LINES = 150
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
COMMON = {"listen", "health-listen", "metrics-listen", "drain-seconds"}
TLS = {"trust-network", "tls-certificate-file", "tls-key-file", "tls-client-ca-file"}
# What the chart decides itself.
DECIDED = {
    GatewayConfig: COMMON | TLS | {
        "tokenizer", "http-listen", "verifier", "model-name", "api-keys-file",
        "verifier-ca-file", "verifier-certificate-file", "verifier-key-file", "verifier-tls-name",
    },
    VerifierConfig: COMMON | TLS | {
        "target", "drafter", "draft-model", "lookup-drafter", "model-name", "device", "exchange-directory",
        "tensor-parallel",  # a replica of the chart has one GPU
    },
    DrafterConfig: COMMON | {"target", "draft-model", "device"},
}  # fmt: skip


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("mode", MODES)
def test_helm_finds_nothing_to_say(mode, helm):
    code, out, err = run(HELMS[helm], "lint", "--strict", CHART, f"--values={values_file(mode)}")
    assert code == 0, out + err
    assert not re.search(r"\[(WARNING|ERROR)\]", out), out


@pytest.mark.parametrize("mode", MODES)
def test_helm_3_and_helm_4_render_the_same(mode):
    assert render(mode, helm="helm 3") == render(mode, helm="helm 4")


@pytest.fixture(scope="module")
def rendered_files(tmp_path_factory):
    """Every mode in a file of its own; objects of custom resources apart."""
    folder, custom = tmp_path_factory.mktemp("rendered"), []
    for mode in MODES:
        own = []
        for object in render(mode).values():
            is_custom = object["apiVersion"].partition("/")[0] in CUSTOM
            (custom if is_custom else own).append(object)
        (folder / f"{mode}.yaml").write_text(yaml.safe_dump_all(own))
    return sorted(folder.iterdir()), custom


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_every_object(version, rendered_files):
    files, _ = rendered_files
    code, out, err = run(TOOLS / "venv" / "bin" / "kubernetes-validate", "--strict", "-k", version, *files)
    assert code == 0 and "WARN" not in out + err, out + err
    assert out.count("passed for resource") == sum(len(list(yaml.safe_load_all(file.read_text()))) for file in files)


def test_kubernetes_refuses_a_field_that_it_does_not_know(tmp_path):
    deployment = json.loads(json.dumps(render("cpu")["Deployment", "gateway"]))
    deployment["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(deployment))
    code, out, err = run(
        TOOLS / "venv" / "bin" / "kubernetes-validate", "--strict", "-k", KUBERNETES[0], tmp_path / "wrong.yaml"
    )
    assert code != 0 and "livenessProb" in out + err


def test_operators_take_every_object_of_theirs(rendered_files):
    _, custom = rendered_files
    script = CHART.parents[1] / "tests" / "deploy" / "validate_custom.mjs"
    code, out, err = run("node", script, TOOLS / "node_modules", input=json.dumps(custom))
    assert (code, out) == (0, ""), out + err
    assert {object["kind"] for object in custom} >= {
        "Certificate",
        "GRPCRoute",
        "HTTPRoute",
        "Issuer",
        "PodMonitor",
        "PrometheusRule",
        "ScaledObject",
    }
    del custom[0]["spec"]
    assert "spec" in run("node", script, TOOLS / "node_modules", input=json.dumps(custom))[1]


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("gatway.replicas=2", "gatway"),
        ("gateway.replica=2", "replica"),
        ("gateway.replicas=two", "replicas"),
        ("gateway.options.max-output-token=1", "max-output-token"),
        ("gateway.options.listen=0.0.0.0:1", "listen"),
        ("replica.verifier.options.dtype=float16", "dtype"),
        ("gpu.mode=mig", "mode"),
        ("gpu.dra.deviceClas=x", "deviceClas"),
        ("model.hub.target=google/gemma", "target"),
        ("images.gateway.digest=latest", "digest"),
        ("securityContext.user=0", "user"),
        ("replica.exchange.size=2GB", "size"),
        ("telemetry.otlp.endpoint=collector:4317", "endpoint"),
    ],
)
@pytest.mark.parametrize("helm", HELMS)
def test_a_wrong_value_is_refused_by_name(setting, named, helm):
    code, _, err = template("cpu", setting, helm=helm)
    assert code != 0 and named in err, err


@pytest.mark.parametrize(
    ("mode", "setting", "says"),
    [
        ("cpu", "model.source=hub", "model.hub.target is required with model.source hub"),
        ("cpu", "model.source=pvc", "model.pvc.claimName is required with model.source pvc"),
        ("cpu", "model.source=image", "model.image.target.reference is required with model.source image"),
        ("cpu", "tls.public.enabled=true", "tls.public.issuer.name is required without tls.public.existingSecret"),
        ("cpu", "gatewayApi.enabled=true", "gatewayApi.parents is required with gatewayApi.enabled"),
        ("cpu", "replica.autoscaling.kind=keda", "replica.autoscaling.prometheusAddress is required"),
        ("device-plugin", "replica.drafter.options.threads=2", "replica.drafter.options has no effect"),
    ],
)
def test_what_goes_together_is_said(mode, setting, says):
    code, _, err = template(mode, setting)
    assert code != 0 and says in err


@pytest.mark.parametrize(
    ("service", "config"), [("gateway", GatewayConfig), ("verifier", VerifierConfig), ("drafter", DrafterConfig)]
)
def test_options_are_those_of_the_process(service, config):
    values = SCHEMA["properties"]["gateway" if service == "gateway" else "replica"]["properties"]
    offered = values["options"] if service == "gateway" else values[service]["properties"]["options"]
    declared = {field.name.replace("_", "-"): field for field in fields(config)}
    assert set(offered["properties"]) == declared.keys() - DECIDED[config]
    for name, schema in offered["properties"].items():
        choices = declared[name].metadata["choices"]
        assert schema == ({"enum": list(choices)} if choices else {"type": schema.get("type")})


def test_every_value_is_in_the_schema_and_the_other_way_round():
    def names(values, schema, path=""):
        assert schema.get("additionalProperties") is False, f"{path}: the schema takes any name"
        # Options are those of a process; helm puts `global` into every chart.
        assert values.keys() == schema["properties"].keys() - {"global"}, path
        for name, value in values.items():
            below = schema["properties"][name]
            below = SCHEMA["$defs"][below["$ref"].rpartition("/")[2]] if "$ref" in below else below
            if isinstance(value, dict) and value and "properties" in below:
                names(value, below, f"{path}.{name}")

    names(yaml.safe_load((CHART / "values.yaml").read_text()), SCHEMA)


def test_no_template_is_long():
    for file in (CHART / "templates").rglob("*.*"):
        assert len(file.read_text().splitlines()) <= MAX_TEMPLATE_LINES, file


def test_a_long_name_stays_within_the_limits():
    objects = render("dra", f"fullnameOverride={'n' * 60}")
    assert max(len(object["metadata"]["name"]) for object in objects.values()) <= 63
    assert all(RELEASE in str(object["metadata"]["labels"]) for object in objects.values())
