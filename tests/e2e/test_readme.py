"""The README's commands and its program do what they say, against the pair that ships with the package."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Up, run_process, tandem

README = (Path(__file__).parents[2] / "README.md").read_text()
GENERATE = re.search(r"^tandem (generate .*)$", README, re.MULTILINE)[1]
PROGRAM = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]


@pytest.fixture(scope="module")
def up():
    up = Up()
    yield up
    up.close()


def test_generate(up):
    code, out, err = tandem(*shlex.split(GENERATE), f"--server={up.address}")
    assert code == 0 and out and "acceptance length" in err


def test_doctor(up):
    code, out, _ = tandem("doctor", f"--server={up.address}")
    assert code == 0 and "fail" not in out


def test_the_program(up):
    program = PROGRAM.replace("127.0.0.1:8700", up.address)
    assert program != PROGRAM
    code, out, err = run_process([sys.executable, "-c", program])
    assert code == 0 and len(out) > 20, err
