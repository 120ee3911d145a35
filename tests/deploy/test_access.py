"""What the templates open, close and show: policies, keys, TLS, routes, metrics."""

import json
import math

import yaml

from tests.deploy.chart import ROOT, containers, options, pod_spec, render


def test_only_gateways_reach_verifiers():
    policy = render("cpu")["NetworkPolicy", "replica"]["spec"]
    peers = [peer for rule in policy["ingress"] if {"port": "grpc"} in rule["ports"] for peer in rule["from"]]
    assert [peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in peers] == ["gateway"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert not [rule for rule in policy["egress"] if "to" not in rule], "nothing is downloaded: there is no way out"
    ways_out = [rule["ports"][0]["port"] for rule in render("dra")["NetworkPolicy", "replica"]["spec"]["egress"]]
    assert ways_out == [53, 4317, 443]
    clients = render("device-plugin")["NetworkPolicy", "gateway"]["spec"]["ingress"][0]
    assert clients["from"] == [{"namespaceSelector": {"matchLabels": {"team": "chat"}}}]
    assert ("NetworkPolicy", "replica") not in render("plain")


def test_keys_come_from_secrets_that_exist():
    objects = render("image-volumes")
    pod = pod_spec(objects, "gateway")
    assert options(containers(pod)["gateway"])["api-keys-file"] == "/etc/tandem/keys/api-keys"
    assert {"name": "api-keys", "secret": {"secretName": "keys", "defaultMode": 0o440}} in pod["volumes"]
    assert options(containers(pod_spec(objects, "test"))["generation"])["api-key-file"] == "/etc/tandem/key/api-key"
    assert not [kind for kind, _ in objects if kind == "Secret"]


def test_both_sides_prove_who_they_are():
    objects = render("image-volumes")
    gateway = containers(pod_spec(objects, "gateway"))["gateway"]
    verifier = containers(pod_spec(objects, "replica"))["verifier"]
    server = objects["Certificate", "replica"]["spec"]
    assert options(gateway)["verifier-tls-name"] in server["dnsNames"] and server["usages"] == ["server auth"]
    assert objects["Certificate", "gateway"]["spec"]["usages"] == ["client auth"]
    for options_, name in ((options(gateway), "verifier-ca-file"), (options(verifier), "tls-client-ca-file")):
        assert options_[name] == "/etc/tandem/tls/internal/ca.crt" and "trust-network" not in options_
    for component in ("gateway", "replica"):
        secrets = [
            volume["secret"]["secretName"] for volume in pod_spec(objects, component)["volumes"] if "secret" in volume
        ]
        certificate = objects["Certificate", component]["spec"]
        assert certificate["secretName"] in secrets and certificate["issuerRef"]["name"] == "gemma-authority"
    assert objects["Issuer", "authority"]["spec"]["ca"]["secretName"] == "gemma-authority-tls"
    assert "drafter" in containers(pod_spec(objects, "replica")), "which has no certificate: it listens on no network"
    existing = render("device-plugin")
    assert not [kind for kind, _ in existing if kind in ("Certificate", "Issuer")]
    assert "gateway-pair" in str(pod_spec(existing, "gateway")["volumes"])


def test_without_tls_the_network_is_trusted_and_said_to_be():
    objects = render("cpu")
    for component, name in (("gateway", "gateway"), ("replica", "verifier")):
        assert options(containers(pod_spec(objects, component))[name])["trust-network"] is True


def test_clients_know_the_gateway_and_are_known_where_it_is_asked_for():
    objects = render("image-volumes")
    assert objects["Certificate", "public"]["spec"]["dnsNames"] == ["gemma-gateway.serving.svc", "gemma.example"]
    (authority,) = [volume for volume in pod_spec(objects, "test")["volumes"] if volume["name"] == "tls-authority"]
    assert authority["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}], "no key of the gateway's"
    known = render("image-volumes", "tls.public.clientCaSecret=clients", "test.clientSecret=client")
    gateway = containers(pod_spec(known, "gateway"))["gateway"]
    assert options(gateway)["tls-client-ca-file"] == "/etc/tandem/tls/clients/ca.crt"
    assert (
        options(containers(pod_spec(known, "test"))["generation"])["server-key-file"]
        == "/etc/tandem/tls/client/tls.key"
    )


def test_a_route_leads_to_the_public_contract_alone():
    route = render("image-volumes")["GRPCRoute", "gateway"]["spec"]
    services = {match["method"]["service"] for match in route["rules"][0]["matches"]}
    assert services == {"tandem.v1.GenerationService", "tandem.v1.ModelService", "grpc.health.v1.Health"}
    assert route["rules"][0]["backendRefs"] == [{"name": "gemma-gateway", "port": 8700}]
    assert route["parentRefs"] == [{"name": "edge", "namespace": "ingress", "sectionName": "grpc"}]


def test_http_is_closed_unless_asked_for():
    objects = render("image-volumes")
    container = containers(pod_spec(objects, "gateway"))["gateway"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert options(container)["http-listen"] == f"0.0.0.0:{ports['http']}"
    (_, port) = objects["Service", "gateway"]["spec"]["ports"]
    assert port == {"name": "http", "port": 8720, "targetPort": "http", "appProtocol": "https"}, "with the same TLS"
    clients = objects["NetworkPolicy", "gateway"]["spec"]["ingress"][0]["ports"]
    assert clients == [{"port": "grpc"}, {"port": "http"}]
    route = objects["HTTPRoute", "gateway"]["spec"]
    assert [match["path"]["value"] for match in route["rules"][0]["matches"]] == ["/v1", "/healthz"]
    assert route["rules"][0]["backendRefs"] == [{"name": "gemma-gateway", "port": 8720}]
    grpc = objects["GRPCRoute", "gateway"]["spec"]
    assert route["parentRefs"] != grpc["parentRefs"] and not set(route["hostnames"]) & set(grpc["hostnames"])
    plain = render("cpu", "gateway.http.enabled=true", "gateway.http.port=80")["Service", "gateway"]["spec"]
    assert plain["ports"][1]["appProtocol"] == "http" and plain["ports"][1]["port"] == 80
    closed = render("cpu")
    assert "http-listen" not in options(containers(pod_spec(closed, "gateway"))["gateway"])
    assert len(closed["Service", "gateway"]["spec"]["ports"]) == 1 and ("HTTPRoute", "gateway") not in closed
    assert closed["NetworkPolicy", "gateway"]["spec"]["ingress"][0]["ports"] == [{"port": "grpc"}]


def test_telemetry_is_told_by_the_standard_variables():
    for component, name in (("gateway", "gateway"), ("replica", "verifier"), ("replica", "drafter")):
        variables = containers(pod_spec(render("dra"), component))[name]["env"]
        values = {variable["name"]: variable.get("value") for variable in variables}
        assert values["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector.serving.svc:4317"
        assert values["OTEL_SERVICE_NAME"] == f"tandem-{name}" and math.isclose(
            float(values["OTEL_TRACES_SAMPLER_ARG"]), 0.1
        )
        assert "$(POD_NAME)" in values["OTEL_RESOURCE_ATTRIBUTES"]
    assert "env" not in containers(pod_spec(render("cpu"), "gateway"))["gateway"]


def test_prometheus_finds_every_port_with_metrics():
    for mode in ("dra", "device-plugin"):
        objects = render(mode, "telemetry.metrics.podMonitor.enabled=true")
        for component in ("gateway", "replica"):
            asked = {endpoint["port"] for endpoint in objects["PodMonitor", component]["spec"]["podMetricsEndpoints"]}
            running = containers(pod_spec(objects, component)).values()
            ports = {port["name"]: port["containerPort"] for one in running for port in one.get("ports", [])}
            assert asked == {name for name in ports if name.endswith("metrics")}
            for container in running:
                if "metrics-listen" in options(container):
                    assert int(options(container)["metrics-listen"].rpartition(":")[2]) in ports.values()
            policy = objects["NetworkPolicy", component]["spec"]["ingress"]
            assert {port["port"] for rule in policy for port in rule["ports"]} == {"grpc", *asked}


def test_alerts_and_dashboards_are_those_of_deploy():
    objects = render("dra")
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yaml").read_text())
    assert objects["PrometheusRule", "alerts"]["spec"] == rules and rules["groups"]
    dashboards = objects["ConfigMap", "dashboards"]
    files = {file.name: json.loads(file.read_text()) for file in (ROOT / "deploy" / "grafana").glob("*.json")}
    assert {name: json.loads(text) for name, text in dashboards["data"].items()} == files and files
    assert dashboards["metadata"]["labels"]["grafana_dashboard"] == "1"
