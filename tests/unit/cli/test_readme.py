"""What the README says is there and can be typed. `tests/e2e` runs it."""

import re
import shlex
from pathlib import Path

import pytest

from tandem.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
SHELL = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]


def test_what_it_explains_fits_one_screen():
    explained, _, _ = README.partition("## What works")
    assert len(explained.splitlines()) <= 100


@pytest.mark.parametrize("line", [line for line in SHELL if line.startswith("tandem ")])
def test_tandem_commands_parse(line, capsys):
    command, *arguments = shlex.split(line, comments=True)[1:]
    assert command in COMMANDS
    with pytest.raises(SystemExit) as ended:
        main([command, *arguments, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(argument in shown for argument in arguments if argument.startswith("--"))


@pytest.mark.parametrize("target", [line.split()[1] for line in SHELL if line.startswith("make ")])
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_path_exists():
    paths = re.findall(r"`([\w/]+(?:\.py|/))`", README)
    assert len(paths) > 20
    for path in paths:
        assert any((folder / path).exists() for folder in (ROOT, ROOT / "services" / "tandem")), path


def test_every_feature_names_its_tests():
    rows = re.findall(r"^\| ([^|]+) \| (`tests/[^|]+) \|$", README, re.MULTILINE)
    assert len(rows) > 10 and all(
        re.fullmatch(r"`tests/[\w/]+(\.py|/)`(, `tests/[\w/]+(\.py|/)`)*", tests) for _, tests in rows
    )


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_every_folder_is_named():
    for folder in (ROOT / "services" / "tandem").iterdir():
        if (folder / "__init__.py").exists() and folder.name not in ("v1", "internal"):
            assert f"`services/tandem/{folder.name}/`" in README or f"`{folder.name}/`" in README, folder.name


def test_a_folder_takes_eight_words_at_most():
    rows = re.findall(r"^\| `[^|]*/`[^|]*\| ([^|]*) \|$", README, re.MULTILINE)
    assert len(rows) > 10 and all(len(row.split()) <= 8 for row in rows)
