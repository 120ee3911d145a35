"""Tandem as its users run it: real processes on a tiny pair, started by `tandem up`."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.checkpoints import make_tiny_pair
from tests.unit.gateway.conftest import byte_level_tokenizer, save_checkpoint

VOCABULARY = 512
SERVICES = ("drafter", "verifier", "gateway")
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def start(command, **streams):
    """Starts a process with none of this one's own settings, on one thread."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("TANDEM_")}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.Popen(command, env=environment, text=True, **streams)


def start_tandem(*arguments, **streams):
    """Starts `tandem`."""
    return start([sys.executable, "-m", "tandem.cli", *arguments], **streams)


def run_process(command, timeout=60):
    """Runs a process to its end: exit code, stdout, stderr."""
    process = start(command)
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, out, err


def tandem(*arguments, timeout=60):
    """Runs `tandem` to its end: exit code, stdout, stderr."""
    return run_process([sys.executable, "-m", "tandem.cli", *arguments], timeout)


def wait_until(condition, seconds=20):
    """Waits for something to become true."""
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, "it never came true"
        time.sleep(0.02)


def is_alive(pid):
    """Whether a process runs; one that ended and awaits its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Up:
    """A running `tandem up`, all of whose output is kept."""

    def __init__(self, *arguments):
        shared_memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.directory = Path(tempfile.mkdtemp(prefix="tandem-e2e-", dir=shared_memory))
        self.process = start_tandem(
            "up", "--listen=127.0.0.1:0", "--threads=1", f"--exchange-directory={self.directory}", *arguments,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.output = ""
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self):
        for line in self.process.stdout:
            self.output += line

    def wait_for(self, pattern, count=1, seconds=30):
        """Waits until a pattern was written `count` times; returns the last match."""
        wait_until(
            lambda: len(re.findall(pattern, self.output, re.MULTILINE)) >= count or self.process.poll() is not None,
            seconds,
        )
        matches = list(re.finditer(pattern, self.output, re.MULTILINE))
        assert len(matches) >= count, self.output
        return matches[-1]

    @property
    def address(self):
        return self.wait_for(r"^tandem is ready on (\S+)$")[1]

    def pid(self, service):
        """The newest process of a service."""
        return int(self.wait_for(rf"^{service} is ready \(.* pid (\d+)\)$")[1])

    def health(self):
        with grpc.insecure_channel(self.address) as channel:
            return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5).status

    def generate(self, *arguments, **options):
        return tandem("generate", f"--server={self.address}", *arguments, **options)

    def start_long(self, *arguments):
        """Starts a generation that takes seconds; returns it once it streams."""
        process = start_tandem(
            "generate", f"--server={self.address}", "--max-tokens=500", "--ignore-eos", *arguments, "def hello"
        )
        assert process.stdout.read(1)
        return process

    def wait(self, seconds=30):
        """The exit code."""
        code = self.process.wait(seconds)
        self._reading.join(seconds)
        return code

    def close(self):
        """Ends it, in whatever state a test left it, and what it started."""
        if self.process.poll() is None:
            for _ in range(2):
                self.process.send_signal(signal.SIGTERM)
                try:
                    self.process.wait(5)
                    break
                except subprocess.TimeoutExpired:
                    continue
        self.process.kill()
        self.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """Options that name a tiny pair."""
    target, drafter = make_tiny_pair(tmp_path_factory.mktemp("pair"), vocab_size=VOCABULARY)
    save_checkpoint(target, byte_level_tokenizer())
    return (f"--target={target}", f"--draft-model={drafter}")


@pytest.fixture
def start_up():
    """Starts `tandem up`, and ends it after the test."""
    started = []

    def start_up(*arguments):
        started.append(Up(*arguments))
        return started[-1]

    yield start_up
    for up in started:
        up.close()


@pytest.fixture(scope="module")
def up(pair):
    """One `tandem up` for tests that leave it serving."""
    up = Up(*pair)
    try:
        yield up
        up.process.send_signal(signal.SIGINT)
        assert up.wait() == 0 and not list(up.directory.iterdir()), "what killed processes held is gone as well"
    finally:
        up.close()
