"""What READMEs tell a new user to type, typed as it stands."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.clients.conftest import FIRST_ANSWER
from tests.clients.table import LANGUAGES, ROOT, own_environment, require_tools

BUF = shutil.which("buf") or str(ROOT / ".tools/node_modules/.bin/buf")
MAX_SECONDS = 300  # from a fresh checkout to the first streamed answer
NEXT_BLOCK = "-- next block --"
RPC = "tandem.v1.GenerationService/StreamGenerate"


def blocks(readme):
    """The commands of a README, block by block."""
    return re.findall(r"^```sh\n(.*?)^```$", readme.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def checkout(tmp_path):
    """A copy as a new user has it: nothing of what was built here."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    return tmp_path


def new_environment():
    """This process's, without what would find the packages of this checkout."""
    return {name: text for name, text in own_environment().items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


@pytest.mark.timeout(MAX_SECONDS + 30)
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_first_streamed_answer(language, replica, checkout, record_property):
    require_tools(language)  # nobody's machine gets compilers from a test
    commands = blocks(checkout / "clients" / language / "README.md")
    if any("apt-get" in block for block in commands) and os.geteuid() != 0:
        pytest.skip("apt-get is for root")
    before = replica.number("tandem_rpc_seconds_count", "gateway", rpc_method=RPC, rpc_status_code="OK")
    started_at = time.monotonic()
    ended = subprocess.run(
        ["bash", "-e", "-c", f"\necho '{NEXT_BLOCK}'\n".join(commands)],
        cwd=checkout,
        env=new_environment() | replica.plain.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=MAX_SECONDS,
    )
    seconds = time.monotonic() - started_at
    assert ended.returncode == 0, ended.stdout + ended.stderr
    answered = replica.number("tandem_rpc_seconds_count", "gateway", rpc_method=RPC, rpc_status_code="OK")
    assert answered == before + 1 and ended.stdout.rpartition(NEXT_BLOCK)[2].strip(), "a stream, and its text"
    record_property(FIRST_ANSWER, f"{language} {seconds:.0f} s")


def test_the_program_of_the_python_readme(replica):
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "clients/python/README.md").read_text(), re.DOTALL)
    assert "127.0.0.1:8700" in program
    program = program.replace("127.0.0.1:8700", replica.plain.address)
    ended = subprocess.run(
        [sys.executable, "-c", program], env=own_environment(), capture_output=True, text=True, timeout=30
    )
    assert ended.returncode == 0, ended.stderr
    assert "Read and return the lines" in ended.stdout and "64\n" in ended.stdout


def json_messages(text):
    """JSON values that stand one after another."""
    decoder, messages = json.JSONDecoder(), []
    while text := text.strip():
        message, end = decoder.raw_decode(text)
        messages.append(message)
        text = text[end:]
    return messages


@pytest.mark.skipif(not Path(BUF).exists(), reason="needs buf: make test-clients")
@pytest.mark.parametrize("schema", ["--schema protos ", ""])
def test_buf_curl(replica, schema):
    (commands,) = [block for block in blocks(ROOT / "README.md") if "buf curl" in block]
    doors = {"127.0.0.1:8700": replica.plain.address, "/tmp/tandem.sock": replica.unix.address.removeprefix("unix:")}
    for written, ours in {**doors, "--schema protos ": schema}.items():
        assert written in commands
        commands = commands.replace(written, ours)
    path = f"{Path(BUF).parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-e", "-c", commands], cwd=ROOT, env={**os.environ, "PATH": path},
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    whole, *streamed = json_messages(ended.stdout)
    assert whole["finished"]["usage"]["numOutputTokens"] == 16
    kinds = [kind for message in streamed for kind in message]
    assert len(kinds) > 8 and [kinds.count(kind) for kind in ("started", "finished")] == [2, 2]
    assert sum(message["delta"]["numTokens"] for message in streamed if "delta" in message) == 32
