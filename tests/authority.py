"""Certificates for a test's servers and clients, and as cert-manager puts them into secrets."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
USAGES = {"client auth": "clientAuth", "server auth": "serverAuth"}
HERE = ("DNS:localhost", "IP:127.0.0.1")


class Authority:
    """Signs what it is asked to."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.ca = folder / "ca.crt"
        self._make("ca", "-subj", "/CN=authority of a test")

    def issue(self, name: str, alternatives: Sequence[str] = HERE, usages: Sequence[str] = ()) -> tuple[str, str]:
        """Certificate and key files."""
        extensions = ["basicConstraints=critical,CA:FALSE", f"subjectAltName={','.join(alternatives)}"]
        if usages:
            extensions.append(f"extendedKeyUsage={','.join(USAGES[usage] for usage in usages)}")
        signing = ("-CA", self.ca, "-CAkey", self.ca.with_suffix(".key"))
        self._make(name, *signing, "-subj", f"/CN={name}", *(word for one in extensions for word in ("-addext", one)))
        return str(self._folder / f"{name}.crt"), str(self._folder / f"{name}.key")

    def fill(self, secret: Path, names: Sequence[str], usages: Sequence[str]) -> None:
        """Fills a secret's folder with tls.crt, tls.key and ca.crt."""
        pair = self.issue(names[0], [f"DNS:{name}" for name in names], usages)
        for name, file in zip(("tls.crt", "tls.key", "ca.crt"), (*pair, self.ca), strict=True):
            shutil.copyfile(file, secret / name)

    def _make(self, name: str, *arguments: str | Path) -> None:
        files = ("-keyout", self._folder / f"{name}.key", "-out", self._folder / f"{name}.crt")
        command = ("openssl", "req", "-x509", "-days", "2", *KEY, *files, *arguments)
        subprocess.run(command, check=True, capture_output=True, timeout=20)
