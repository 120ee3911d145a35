"""A live Tandem on the demo pair, with three doors: a port, a Unix socket, and a port with TLS that asks for a key."""

import re
import urllib.request

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tandem.demo import DEMO_TARGET
from tests.deploy.authority import Authority
from tests.e2e.conftest import SERVING, Up, start_tandem, wait_until

KEY = "key-of-a-test"


class Door:
    """Where a client may come in, and with what."""

    def __init__(self, address, ca_file=None, api_key=None):
        self.address = address
        self.ca_file = ca_file
        settings = {"TANDEM_ADDRESS": address, "TANDEM_CA_FILE": ca_file, "TANDEM_API_KEY": api_key}
        self.environment = {name: str(text) for name, text in settings.items() if text}

    def is_serving(self):
        """Whether the gateway behind it says so."""
        if self.ca_file:
            channel = grpc.secure_channel(self.address, grpc.ssl_channel_credentials(self.ca_file.read_bytes()))
        else:
            channel = grpc.insecure_channel(self.address)
        with channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            try:
                return check(health_pb2.HealthCheckRequest(), timeout=5).status == SERVING
            except grpc.RpcError:
                return False


class Replica:
    """Verifier, drafter and three gateways."""

    def __init__(self, folder):
        self._gateways = []
        self._up = Up("--metrics-listen=127.0.0.1:0", "--reflection")
        try:
            self.plain = Door(self._up.address)
            self.unix = Door(f"unix:{self._up.directory}/gateway.sock")
            self._start_gateway(f"--listen={self.unix.address}", "--reflection")
            self.secure = self._start_secure_gateway(folder)
            self._metrics = {
                service: self._up.wait_for(rf"^{service} +\| .*metrics on (\S+)$")[1]
                for service in ("verifier", "gateway")
            }
            wait_until(lambda: self.unix.is_serving() and self.secure.is_serving())
        except BaseException:
            self.close()
            raise

    def number(self, name, service="verifier", **labels):
        """Sum of the values of a metric that have these labels. The gateway's are those of the plain door."""
        page = urllib.request.urlopen(self._metrics[service], timeout=5).read().decode()
        lines = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", page, re.MULTILINE)
        assert f"# TYPE {name.removesuffix('_count')} " in page
        wanted = [f'{label}="{text}"' for label, text in labels.items()]
        return sum(float(value) for given, value in lines if all(label in given for label in wanted))

    def close(self):
        """Ends all of it."""
        for gateway in self._gateways:
            gateway.kill()
            gateway.wait()
        self._up.close()

    def _start_secure_gateway(self, folder):
        Authority(folder / "authority").issue(folder, ["localhost"], ["server auth"])
        keys, log = folder / "keys", folder / "gateway.log"
        keys.write_text(f"{KEY}\n")
        with log.open("w") as stderr:
            self._start_gateway(
                "--listen=127.0.0.1:0",
                f"--tls-certificate-file={folder / 'tls.crt'}",
                f"--tls-key-file={folder / 'tls.key'}",
                f"--api-keys-file={keys}",
                stderr=stderr,
            )
        wait_until(lambda: "gateway ready on" in log.read_text())
        port = re.search(r"gateway ready on 127\.0\.0\.1:(\d+)", log.read_text())[1]
        return Door(f"localhost:{port}", folder / "ca.crt", KEY)

    def _start_gateway(self, *arguments, **streams):
        (verifier,) = self._up.directory.glob("tandem-*/verifier.sock")
        command = ("gateway", f"--tokenizer={DEMO_TARGET}", f"--verifier=unix:{verifier}", *arguments)
        self._gateways.append(start_tandem(*command, **{"stdout": None, "stderr": None, **streams}))
