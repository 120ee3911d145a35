import io
import json
import logging
import re

import pytest

from tandem.core.config import load
from tandem.core.errors import ConfigError
from tandem.telemetry.logs import LogConfig, configure

logger = logging.getLogger("tandem.somewhere")


@pytest.fixture
def log():
    """A function that configures the log, and gives back its lines."""
    root, tandem = logging.getLogger(), logging.getLogger("tandem")
    kept, levels = root.handlers[:], (root.level, tandem.level)
    root.handlers[:] = []  # those of pytest are not ours to close
    stream = io.StringIO()

    def lines(level="info", log_format="text", **options):
        configure("verifier", LogConfig(level, log_format), stream=stream, **options)
        return lambda: stream.getvalue().splitlines()

    yield lines
    root.handlers[:] = kept
    root.setLevel(levels[0])
    tandem.setLevel(levels[1])


def test_a_record_is_a_line_with_time_level_service_and_message(log):
    lines = log()
    logger.info("ready on %s", "unix:/x")
    (line,) = lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    verifier ready on unix:/x", line)


def test_the_request_is_named_where_there_is_one(log):
    lines = log(request_id=lambda: "r-1")
    logger.warning("slow")
    assert lines()[0].endswith("WARNING verifier [r-1] slow")


def test_line_breaks_and_tracebacks_stay_on_the_line(log):
    lines = log()
    logger.info("two\nlines\r and \\n")
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logger.exception("failed")
    first, second = lines()
    assert first.endswith(r"two\nlines\r and \\n")
    assert "failed\\nTraceback" in second and second.endswith("RuntimeError: broken")


def test_levels(log):
    lines = log("warning")
    logger.info("not shown")
    logging.getLogger("a.library").info("never shown")
    logging.getLogger("a.library").warning("shown")
    assert len(lines()) == 1
    lines = log("debug")
    logger.debug("shown")
    logging.getLogger("a.library").info("never shown")
    assert len(lines()) == 2


def test_configuring_again_replaces(log):
    log()
    lines = log()
    logger.info("once")
    assert len(lines()) == 1


def test_the_level_is_a_setting():
    assert load(LogConfig, {"TANDEM_LOG_LEVEL": "debug"}, {}).log_level == "debug"
    with pytest.raises(ConfigError, match="TANDEM_LOG_LEVEL must be one of"):
        load(LogConfig, {"TANDEM_LOG_LEVEL": "loud"}, {})


def test_json_names_the_request_and_leaves_out_what_there_is_not(log):
    lines = log(log_format="json", request_id=lambda: "r-1")
    logger.warning("two\nlines")
    (record,) = map(json.loads, lines())
    assert record.pop("time").endswith("Z")
    assert record == {
        "level": "warning", "service": "verifier", "logger": "tandem.somewhere", "message": "two\nlines",
        "request_id": "r-1",
    }  # fmt: skip
