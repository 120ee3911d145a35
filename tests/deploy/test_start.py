"""Command lines, environment, probes, ports and volumes of the chart, as the real processes take them: a gateway and a
replica of each mode serve the demo pair, and the pod of `helm test` asks them for a text."""

import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tandem.demo import DEMO_DRAFTER, DEMO_TARGET
from tests.authority import Authority
from tests.deploy.chart import NAMESPACE, containers, pod_spec, render
from tests.deploy.pods import Pod, Ports, here
from tests.hub import Hub

TOKEN, KEY = "a-token-of-a-test", "a-key-of-a-test"
KEY_FILES = {"keys": "api-keys", "test-key": "api-key"}
PAIRS = {
    "gateway-pair": (["gateway"], ["client auth"]),
    "replica-pair": ([f"t-tandem-replica.{NAMESPACE}.svc"], ["server auth"]),
}
START_SECONDS = 60
FOLDER = DEMO_TARGET.parent
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def wait_until(condition, *processes):
    """Waits for something to become true while processes run."""
    give_up_at = time.monotonic() + START_SECONDS
    while not condition():
        for process in processes:
            assert process.is_running, process.output
        assert time.monotonic() < give_up_at, [process.output for process in processes]
        time.sleep(0.05)


class Release:
    """A release's pods, one of each component, on this machine."""

    def __init__(self, mode, folder, ending, hub):
        self._objects = render(mode)
        self._folder = folder
        self._ending = ending
        self._authority = Authority(folder / "authority")
        self._ports = Ports({("hub", 8080): urlsplit(hub.endpoint).port})

    def pod(self, component):
        """A pod, and the volumes that somebody else would have made for it."""
        folder = self._folder / component
        folder.mkdir()
        volumes = {}
        for volume in pod_spec(self._objects, component)["volumes"]:
            name = volume["name"]
            if "image" in volume:
                volumes[name] = FOLDER / name.removeprefix("weights-")
            elif "persistentVolumeClaim" in volume:
                volumes[name] = folder / name
                shutil.copytree(FOLDER, volumes[name] / "gemma")
            elif "secret" in volume:
                volumes[name] = folder / name
                volumes[name].mkdir()
                self._fill(volumes[name], volume["secret"])
        return Pod(component, pod_spec(self._objects, component), folder, self._ports, volumes)

    def _fill(self, folder, secret):
        """A secret's files, as a user makes them, or cert-manager from the rendered certificates."""
        made = {
            object["spec"]["secretName"]: (object["spec"]["dnsNames"], object["spec"]["usages"])
            for (kind, name), object in self._objects.items()
            if kind == "Certificate" and name != "authority"
        }
        name = secret["secretName"]
        if name in KEY_FILES:
            (folder / KEY_FILES[name]).write_text(f"# of a test\n{KEY}\n")
            return
        names, usages = made.get(name) or PAIRS[name]
        self._authority.fill(folder, [here(name) for name in names], usages)
        for file in folder.iterdir() if "items" in secret else ():
            if file.name not in {item["path"] for item in secret["items"]}:
                file.unlink()

    def start(self, pod, name):
        """Starts a container, which ends with the test."""
        process = pod.start(name, {"hub-token": {"token": TOKEN}})
        self._ending.callback(process.close)
        return process

    def run(self, pod, name):
        """Runs a container to its end; returns what it wrote."""
        process = self.start(pod, name)
        assert process.wait(START_SECONDS) == 0, process.output
        return process.output


@pytest.mark.parametrize("mode", ["dra", "device-plugin", "image-volumes"])
def test_a_release_serves_as_it_is_rendered(mode):
    with ExitStack() as ending:
        # Not tmp_path: that of a socket has to be short.
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="tandem-")))
        hub = ending.enter_context(Hub({"org/target": DEMO_TARGET, "org/drafter": DEMO_DRAFTER}, TOKEN))
        release = Release(mode, folder, ending, hub)

        pod = release.pod("gateway")
        if "fetch" in containers(pod.spec):
            release.run(pod, "fetch")
            assert set(hub.downloads) <= {f"org/target/{name}" for name in TOKENIZER_FILES}, "no weights"
        gateway = release.start(pod, "gateway")
        wait_until(lambda: gateway.probe("startupProbe"), gateway)
        assert gateway.probe("livenessProbe") and not gateway.probe("readinessProbe"), "no verifier, no restart"

        pod = release.pod("replica")
        drafters = []
        if "fetch" in containers(pod.spec):
            release.run(pod, "fetch")
        if "drafter" in containers(pod.spec):
            drafters.append(release.start(pod, "drafter"))
        verifier = release.start(pod, "verifier")
        wait_until(lambda: verifier.probe("startupProbe"), verifier, *drafters)
        assert verifier.probe("livenessProbe") and verifier.probe("readinessProbe"), verifier.output
        wait_until(lambda: gateway.probe("readinessProbe"), gateway, verifier)
        wait_until(lambda: "attached: " in verifier.output, verifier)
        for drafter in drafters:
            assert drafter.probe("livenessProbe")
        for process in (gateway, verifier, *drafters):
            for port in process.container["ports"]:
                assert process.listens(port["containerPort"]), port

        pod = release.pod("test")
        assert "ok    drafter " in release.run(pod, "health")
        assert "tokens 8," in release.run(pod, "generation")

        for process in (gateway, verifier, *drafters):
            process.stop()
            assert process.wait(20) == 0, process.output
