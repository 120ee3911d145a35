"""Containers of rendered manifests as processes of this machine.

Command line and environment are those of the manifest, but for what a machine without containers has to have elsewhere:
mounted folders lie under a folder of the pod, ports are free ones of the loopback, names of services are localhost, and
there is no GPU.
"""

import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tandem.demo import DEMO_TARGET
from tests.deploy.chart import NAMESPACE, containers

POD_NAME = "pod-0"
SERVING = health_pb2.HealthCheckResponse.SERVING
# What the image has that no mount brings.
IMAGE = {"/opt/tandem/demo": DEMO_TARGET.parent}


def here(text):
    """A text in which every service of the release is this machine."""
    return re.sub(rf"\b[\w-]+\.{NAMESPACE}\.svc\b", "localhost", text)


class Ports:
    """For each port of a component's pods a free one of this machine."""

    def __init__(self, taken=None):
        """`taken` are ports of components that listen already."""
        self._free = dict(taken or {})

    def __getitem__(self, component_and_port):
        component, port = component_and_port
        if (component, port) not in self._free:
            # Neighbours stay neighbours: some processes count on from a port that they are given.
            if (component, port - 1) in self._free:
                self._free[component, port] = self._free[component, port - 1] + 1
            else:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", 0))
                    self._free[component, port] = probe.getsockname()[1]
        return self._free[component, port]


class Pod:
    """One pod; its volumes are folders."""

    def __init__(self, component, spec, folder: Path, ports: Ports, volumes=None):
        """`volumes` are folders that stand for volumes which the pod does not make itself."""
        self.component = component
        self.spec = spec
        self.ports = ports
        self.volumes = dict(volumes or {})
        for volume in spec["volumes"]:
            if "emptyDir" in volume:
                path = folder / volume["name"]
                path.mkdir()
                path.chmod(0o777)  # as a kubelet makes it
                self.volumes[volume["name"]] = path
        assert self.volumes.keys() == {volume["name"] for volume in spec["volumes"]}

    def start(self, name, secrets=None):
        """Starts a container."""
        return Process(self, containers(self.spec)[name], secrets or {})


class Process:
    """A container's process, all of whose output is kept."""

    def __init__(self, pod: Pod, container, secrets):
        self.container = container
        self._pod = pod
        self._mounts = {mount["mountPath"]: pod.volumes[mount["name"]] for mount in container["volumeMounts"]}
        assert container["command"][0] == "tandem"
        arguments = [self._here(argument) for argument in (*container["command"][1:], *container["args"])]
        kept = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS") if name in os.environ}
        kept |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HOME": str(self._mounts["/tmp"])}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tandem.cli", *arguments],
            env=kept | self._environment(secrets),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
        )
        self.output = ""
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self):
        for line in self._process.stdout:
            self.output += line

    def _here(self, text):
        """A text of the manifest as it has to be on this machine."""
        folders = {**IMAGE, **self._mounts}
        paths = "|".join(sorted(map(re.escape, folders), key=len, reverse=True))
        text = re.sub(rf"(?<![\w/])({paths})(?=/|$)", lambda found: str(folders[found[1]]), text)
        text = re.sub(r"\b0\.0\.0\.0:(\d+)", lambda found: f"127.0.0.1:{self.port(int(found[1]))}", text)
        service = rf"\b(?:[\w-]+-)?(\w+)\.{NAMESPACE}\.svc:(\d+)"
        text = re.sub(service, lambda found: f"localhost:{self._pod.ports[found[1], int(found[2])]}", text)
        return here(text).replace("--device=cuda", "--device=cpu")

    def port(self, number):
        """Where a port of the manifest is on this machine."""
        return self._pod.ports[self._pod.component, number]

    def _environment(self, secrets):
        """The variables; those that come from elsewhere are looked up there, as a kubelet would."""
        values = {}
        for variable in self.container.get("env", []):
            source = variable.get("valueFrom", {})
            if "resourceFieldRef" in source:
                _, _, name = source["resourceFieldRef"]["resource"].partition(".")
                value = str(math.ceil(_number(self.container["resources"]["limits"][name])))
            elif "fieldRef" in source:
                assert source["fieldRef"]["fieldPath"] == "metadata.name"
                value = POD_NAME
            elif "secretKeyRef" in source:
                value = secrets[source["secretKeyRef"]["name"]][source["secretKeyRef"]["key"]]
            else:
                value = re.sub(r"\$\((\w+)\)", lambda found: values[found[1]], variable["value"])
            values[variable["name"]] = self._here(value)
        return values

    def probe(self, name):
        """Whether the probe of this name succeeds now."""
        probe = self.container[name]["grpc"]
        with grpc.insecure_channel(f"127.0.0.1:{self.port(probe['port'])}") as channel:
            request = health_pb2.HealthCheckRequest(service=probe["service"])
            try:
                return health_pb2_grpc.HealthStub(channel).Check(request, timeout=2).status == SERVING
            except grpc.RpcError:
                return False

    def listens(self, port):
        """Whether a port of the manifest takes connections."""
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port(port))) == 0

    @property
    def is_running(self):
        return self._process.poll() is None

    def wait(self, seconds):
        """The exit code."""
        code = self._process.wait(seconds)
        self._reading.join(seconds)
        return code

    def stop(self):
        """Tells it to stop, as the kubelet does after preStop."""
        self._process.send_signal(signal.SIGTERM)

    def close(self):
        """Ends it, in whatever state a test left it: first as a supervisor may need, then for good."""
        if self.is_running:
            self.stop()
            self.stop()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self.wait(5)


def _number(quantity):
    return float(quantity[:-1]) / 1000 if str(quantity).endswith("m") else float(quantity)
