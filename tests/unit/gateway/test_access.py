"""API keys and rate limits, without a server."""

import hashlib
import hmac

import pytest

from tandem.core.errors import ConfigError, RateLimited
from tandem.gateway.authentication import ApiKeys
from tandem.gateway.rate_limit import TokenBucket


def digest(key):
    return hashlib.sha256(key.encode()).digest()


def take(bucket):
    bucket.require("requests")
    bucket.take()


def test_keys_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# ours\nfirst-key\n\n  sha256:{digest('second-key').hex()} \n")
    keys = ApiKeys.load(path)
    assert [keys.find(key) for key in (b"first-key", b"second-key")] == [digest("first-key"), digest("second-key")]
    for wrong in (b"", b"first", b"first-key ", b"FIRST-KEY", b"# ours", b"\xff"):
        assert keys.find(wrong) is None


@pytest.mark.parametrize("content", [b"", b"# only a comment\n\n", b"\xff\xfe"])
def test_files_without_a_key_are_refused(tmp_path, content):
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        ApiKeys.load(path)
    with pytest.raises(ConfigError, match="cannot read"):
        ApiKeys.load(tmp_path / "missing")


def test_every_key_is_compared_in_constant_time(monkeypatch):
    """A match must not end the search, nor may any comparison stop at the first difference."""
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(a) or real(a, b))
    known = [digest(key) for key in ("one", "two", "three")]
    keys = ApiKeys(known)
    for given in (b"one", b"three", b"nothing"):
        compared.clear()
        keys.find(given)
        assert compared == known


def test_bucket_says_when_to_come_back():
    now = [100.0]
    bucket = TokenBucket(per_minute=6, clock=lambda: now[0])
    for _ in range(6):
        take(bucket)
    with pytest.raises(RateLimited) as caught:
        take(bucket)
    assert caught.value.retry_after_seconds == pytest.approx(10)
    now[0] += 4
    with pytest.raises(RateLimited) as caught:
        take(bucket)
    assert caught.value.retry_after_seconds == pytest.approx(6)
    now[0] += caught.value.retry_after_seconds + 1e-6
    take(bucket)
    now[0] += 3600
    for _ in range(6):
        take(bucket)
    with pytest.raises(RateLimited):
        take(bucket)
