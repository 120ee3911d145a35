"""What each template makes of the values."""

import re

import pytest
import yaml

from tandem.telemetry import metrics
from tests.deploy.chart import CHART, MODES, containers, options, pod_spec, render


def every_pod(objects):
    return {component: pod_spec(objects, component) for component in ("gateway", "replica", "test")}


def claims(container):
    return container["resources"].get("claims", [])


def test_a_claimed_gpu_is_shared_by_two_containers():
    objects = render("dra")
    pod = pod_spec(objects, "replica")
    assert pod["resourceClaims"] == [{"name": "gpu", "resourceClaimTemplateName": "t-tandem-gpu"}]
    assert objects["ResourceClaimTemplate", "gpu"]["spec"]["spec"]["devices"]["requests"][0]["exactly"]["count"] == 1
    assert pod["shareProcessNamespace"] is True, "CUDA opens handles of processes that it can see"
    for name in ("verifier", "drafter"):
        container = containers(pod)[name]
        assert claims(container) == [{"name": "gpu"}] and options(container)["device"] == "cuda"
        assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert claims(containers(pod)["fetch"]) == []


def test_a_gpu_of_a_plugin_belongs_to_one_container():
    pod = pod_spec(render("device-plugin"), "replica")
    assert containers(pod).keys() == {"verifier"} and "shareProcessNamespace" not in pod
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1 and container["command"] == ["tandem", "up"]
    assert options(container)["no-gateway"] is True and options(container)["draft-model"] == "/weights/gemma/drafter"


def test_without_a_gpu_threads_are_the_share_of_the_container():
    pod = pod_spec(render("cpu"), "replica")
    assert "shareProcessNamespace" not in pod and "resourceClaims" not in pod
    (threads,) = [variable for variable in containers(pod)["verifier"]["env"] if variable["name"] == "TANDEM_THREADS"]
    assert threads["valueFrom"]["resourceFieldRef"]["resource"] == "limits.cpu"
    pod = pod_spec(render("cpu", "replica.verifier.options.threads=3"), "replica")
    assert "env" not in containers(pod)["verifier"] and options(containers(pod)["verifier"])["threads"] == "3"


def test_the_drafter_outlives_the_verifier_and_meets_it_in_memory():
    pod = pod_spec(render("cpu"), "replica")
    drafter = containers(pod)["drafter"]
    assert drafter in pod["initContainers"] and drafter["restartPolicy"] == "Always"
    assert "startupProbe" not in drafter and "readinessProbe" not in drafter, "no drafter holds a verifier up"
    (exchange,) = [volume for volume in pod["volumes"] if volume["name"] == "exchange"]
    assert exchange["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}
    verifier = containers(pod)["verifier"]
    assert options(verifier)["drafter"] == options(drafter)["listen"] == "unix:/run/tandem/sockets/drafter.sock"
    for container in (verifier, drafter):
        assert {"name": "exchange", "mountPath": options(verifier)["exchange-directory"]} in container["volumeMounts"]


def test_without_a_drafter_nothing_of_it_is_left():
    pod = pod_spec(render("plain"), "replica")
    assert containers(pod).keys() == {"verifier"} and options(containers(pod)["verifier"])["drafter"] == "none"


@pytest.mark.parametrize("mode", MODES)
def test_every_path_that_a_process_is_told_is_there(mode):
    for pod in every_pod(render(mode)).values():
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in containers(pod).values():
            mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
            assert volumes >= {mount["name"] for mount in mounts.values()} and "/tmp" in mounts
            for value in options(container).values():
                path = str(value).removeprefix("unix:")
                if path.startswith("/") and not path.startswith("/opt/tandem/demo/"):
                    assert any(path == mount or path.startswith(f"{mount}/") for mount in mounts), path


@pytest.mark.parametrize("mode", MODES)
def test_every_pod_is_restricted(mode):
    for component, pod in every_pod(render(mode)).items():
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 65532
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False and "hostPID" not in pod and "hostIPC" not in pod
        for container in containers(pod).values():
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, component
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys()


def test_weights_are_read_and_only_fetched_by_who_has_the_token():
    for component in ("gateway", "replica"):
        pod = pod_spec(render("dra"), component)
        for name, container in containers(pod).items():
            variables = {variable["name"]: variable for variable in container.get("env", [])}
            (mount,) = [mount for mount in container["volumeMounts"] if mount["mountPath"] == "/weights"]
            assert ("HF_TOKEN" in variables) == (name == "fetch") == (not mount.get("readOnly", False))
            assert variables["HF_HUB_CACHE"]["value"] == "/weights"
            assert ("HF_HUB_OFFLINE" in variables) == (name != "fetch")
    fetch = containers(pod_spec(render("dra"), "gateway"))["fetch"]
    assert options(fetch).keys() == {"tokenizer"}, "a gateway has no use for weights"
    claimed = pod_spec(render("dra", "model.hub.claimName=cache"), "replica")
    assert {"name": "weights", "persistentVolumeClaim": {"claimName": "cache"}} in claimed["volumes"]


def test_weights_as_images_and_as_a_claim():
    pod = pod_spec(render("image-volumes"), "replica")
    images = {volume["name"]: volume["image"] for volume in pod["volumes"] if "image" in volume}
    assert images["weights-target"] == {"reference": "registry.example/gemma-target:1", "pullPolicy": "IfNotPresent"}
    assert images.keys() == {"weights-target", "weights-drafter"}
    assert "weights-drafter" not in {
        volume["name"] for volume in pod_spec(render("image-volumes"), "gateway")["volumes"]
    }
    pod = pod_spec(render("device-plugin"), "gateway")
    assert {"name": "weights", "persistentVolumeClaim": {"claimName": "weights", "readOnly": True}} in pod["volumes"]


@pytest.mark.parametrize("component", ["gateway", "replica"])
def test_a_pod_is_given_the_time_that_its_end_takes(component):
    values = (f"{component}.preStopSeconds=7", f"{component}.drainSeconds=300")
    pod = pod_spec(render("cpu", *values), component)
    container = pod["containers"][0]
    assert container["lifecycle"]["preStop"] == {"sleep": {"seconds": 7}}
    assert options(container)["drain-seconds"] == "300"
    assert pod["terminationGracePeriodSeconds"] == 7 + 300 + 15


def test_probes_are_grpc_and_a_start_may_take_half_an_hour():
    pod = pod_spec(render("cpu"), "replica")
    verifier = containers(pod)["verifier"]
    probe = verifier["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 30 * 60 and probe["grpc"]["service"] == ""
    for name, pod in every_pod(render("cpu")).items():
        for container in containers(pod).values() if name != "test" else ():
            listen = options(container)["health-listen"]
            assert container["livenessProbe"]["grpc"]["service"] == "grpc.health.v1.Health"
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert listen == f"0.0.0.0:{container.get(kind, container['livenessProbe'])['grpc']['port']}"


def test_gateways_see_every_replica_under_one_name():
    objects = render("cpu")
    service = objects["Service", "replica"]["spec"]
    assert service["clusterIP"] == "None" and service["selector"]["app.kubernetes.io/component"] == "replica"
    gateway = containers(pod_spec(objects, "gateway"))["gateway"]
    assert options(gateway)["verifier"] == f"dns:t-tandem-replica.serving.svc:{service['ports'][0]['port']}"
    elsewhere = containers(pod_spec(render("cpu", "gateway.verifiers=10.0.0.1:8701"), "gateway"))["gateway"]
    assert options(elsewhere)["verifier"] == "10.0.0.1:8701"


@pytest.mark.parametrize("component", ["gateway", "replica"])
def test_a_service_leads_to_a_port_of_its_pods(component):
    objects = render("cpu")
    service, deployment = objects["Service", component]["spec"], objects["Deployment", component]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert (
        service["selector"].items() <= labels.items() and deployment["selector"]["matchLabels"] == service["selector"]
    )
    container = deployment["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert options(container)["listen"] == f"0.0.0.0:{ports[service['ports'][0]['targetPort']]}"
    assert service["ports"][0].get("appProtocol") == ("kubernetes.io/h2c" if component == "gateway" else None)


def test_replicas_follow_their_queue_and_their_memory():
    objects = render("device-plugin")
    assert "replicas" not in objects["Deployment", "replica"]["spec"], "somebody else decides"
    queue, memory = objects["HorizontalPodAutoscaler", "replica"]["spec"]["metrics"]
    assert queue["pods"]["target"]["averageValue"] == "8" and memory["pods"]["target"]["averageValue"] == "800m"
    triggers = render("dra")["ScaledObject", "replica"]["spec"]["triggers"]
    assert [trigger["metadata"]["threshold"] for trigger in triggers] == ["8", "80"]
    assert all('namespace="serving",pod=~"t-tandem-replica-.*"' in trigger["metadata"]["query"] for trigger in triggers)
    names = {name for trigger in triggers for name in re.findall(r"tandem_\w+", trigger["metadata"]["query"])}
    assert names <= {metric.name for metric in vars(metrics).values() if isinstance(metric, metrics.Metric)}
    assert objects["HorizontalPodAutoscaler", "gateway"]["spec"]["metrics"][0]["resource"]["name"] == "cpu"


@pytest.mark.parametrize("component", ["gateway", "replica"])
def test_pods_are_spread_and_not_all_evicted(component):
    objects = render("cpu")
    (*_, hosts) = pod_spec(objects, component)["topologySpreadConstraints"]
    assert hosts["topologyKey"] == "kubernetes.io/hostname"
    budget = objects["PodDisruptionBudget", component]["spec"]
    assert budget["selector"] == hosts["labelSelector"] and budget["maxUnavailable"] == 1
    assert ("PodDisruptionBudget", component) not in render("plain")


def test_images_are_named_by_digest_or_version():
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    objects = render("image-volumes")
    assert containers(pod_spec(objects, "gateway"))["gateway"]["image"].startswith(
        "registry.example/tandem-gateway@sha256:"
    )
    assert containers(pod_spec(objects, "replica"))["drafter"]["image"] == f"tandem-drafter:{version}"
    assert all(pod["imagePullSecrets"] == [{"name": "registry"}] for pod in every_pod(objects).values())


def test_numbers_are_written_as_processes_read_them():
    verifier = containers(pod_spec(render("dra"), "replica"))["verifier"]
    given = options(verifier)
    assert (given["kv-tokens"], given["draft-timeout-ms"], given["adaptive-k"]) == ("200000", "50.5", True)
    assert options(containers(pod_spec(render("device-plugin"), "replica"))["verifier"])["no-prefix-cache"] is True
    big = render("cpu", "gateway.options.max-prompt-characters=20000000")
    assert options(containers(pod_spec(big, "gateway"))["gateway"])["max-prompt-characters"] == "20000000"
