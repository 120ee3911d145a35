"""A live Tandem on the demo pair, with three doors: a port, a Unix socket, and a port with TLS that asks for a key."""

import re
import subprocess
import urllib.request

from tandem.demo import DEMO_TARGET
from tests.authority import Authority
from tests.e2e.conftest import Up, start_tandem, wait_until

KEY = "key-of-a-test"


class Door:
    """Where a client may come in, and with what."""

    def __init__(self, address, ca_file=None, api_key=None):
        self.address = address
        settings = {"TANDEM_ADDRESS": address, "TANDEM_CA_FILE": ca_file, "TANDEM_API_KEY": api_key}
        self.environment = {name: str(text) for name, text in settings.items() if text}


class Replica:
    """Verifier, drafter and three gateways."""

    def __init__(self, folder):
        self._folder = folder
        self._gateways = []
        self._up = Up("--metrics-listen=127.0.0.1:0", "--reflection")
        try:
            self.plain = Door(self._up.address)
            self.unix = Door(f"unix:{self._up.directory}/gateway.sock")
            self._start_gateway("unix", f"--listen={self.unix.address}", "--reflection")
            self.secure = self._start_secure_gateway()
            self._metrics = {
                service: self._up.wait_for(rf"^{service} +\| .*metrics on (\S+)$")[1]
                for service in ("verifier", "gateway")
            }
        except BaseException:
            self.close()
            raise

    def number(self, name, service="verifier", **labels):
        """Sum of the values of a metric that have these labels. The gateway's are those of the plain door."""
        page = urllib.request.urlopen(self._metrics[service], timeout=5).read().decode()
        assert f"# TYPE {name.removesuffix('_count')} " in page
        lines = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", page, re.MULTILINE)
        wanted = [f'{label}="{text}"' for label, text in labels.items()]
        return sum(float(value) for given, value in lines if all(label in given for label in wanted))

    def close(self):
        """Ends all of it."""
        for gateway in self._gateways:
            gateway.kill()
            gateway.wait()
        self._up.close()

    def _start_secure_gateway(self):
        Authority(self._folder / "authority").fill(self._folder, ["localhost"], ["server auth"])
        keys = self._folder / "keys"
        keys.write_text(f"{KEY}\n")
        log = self._start_gateway(
            "secure",
            "--listen=127.0.0.1:0",
            f"--tls-certificate-file={self._folder / 'tls.crt'}",
            f"--tls-key-file={self._folder / 'tls.key'}",
            f"--api-keys-file={keys}",
        )
        port = re.search(r"gateway ready on 127\.0\.0\.1:(\d+)", log)[1]
        return Door(f"localhost:{port}", self._folder / "ca.crt", KEY)

    def _start_gateway(self, name, *arguments):
        """Starts one and waits until it has found the verifier; returns its log so far."""
        (verifier,) = self._up.directory.glob("tandem-*/verifier.sock")
        log = self._folder / f"{name}.log"
        with log.open("w") as output:
            command = ("gateway", f"--tokenizer={DEMO_TARGET}", f"--verifier=unix:{verifier}", *arguments)
            gateway = start_tandem(*command, stdout=output, stderr=subprocess.STDOUT)
        self._gateways.append(gateway)
        wait_until(lambda: " serves target" in log.read_text() or gateway.poll() is not None)
        assert gateway.poll() is None, log.read_text()
        return log.read_text()
