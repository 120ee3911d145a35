"""Certificates as cert-manager would put them into secrets."""

import subprocess
from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
USAGES = {"client auth": "clientAuth", "server auth": "serverAuth"}


class Authority:
    """Signs what it is asked to."""

    def __init__(self, folder: Path):
        self._folder = folder
        folder.mkdir()
        _openssl("-keyout", folder / "ca.key", "-out", folder / "ca.crt", "-subj", "/CN=authority of a test")

    def issue(self, secret: Path, names, usages):
        """Fills a secret's folder with tls.crt, tls.key and ca.crt."""
        _openssl(
            "-CA", self._folder / "ca.crt", "-CAkey", self._folder / "ca.key",
            "-keyout", secret / "tls.key", "-out", secret / "tls.crt", "-subj", f"/CN={names[0]}",
            "-addext", "basicConstraints=critical,CA:FALSE",
            "-addext", f"subjectAltName={','.join(f'DNS:{name}' for name in names)}",
            "-addext", f"extendedKeyUsage={','.join(USAGES[usage] for usage in usages)}",
        )  # fmt: skip
        (secret / "ca.crt").write_bytes((self._folder / "ca.crt").read_bytes())


def _openssl(*arguments):
    subprocess.run(["openssl", "req", "-x509", "-days", "2", *KEY, *arguments], check=True, capture_output=True)
