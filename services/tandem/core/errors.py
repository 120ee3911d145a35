"""Everything that can go wrong with a request or at start-up, as types.

`rpc.errors` holds the one table that maps these to gRPC status codes; the command line maps `ConfigError` to exit
code 2. Messages are written for the user: what to change, never what the process looks like inside.
"""


class TandemError(Exception):
    """Base of all errors with a meaning to a user.

    `reason` is the machine-readable name that travels in `google.rpc.ErrorInfo`.
    """

    reason = "INTERNAL"


class ConfigError(TandemError):
    """A setting, path or checkpoint that the process cannot start with: one clear line and exit code 2."""

    reason = "INVALID_CONFIGURATION"


class CheckpointError(ConfigError):
    """A checkpoint with a missing, surplus or misshapen tensor, or a configuration that does not fit."""

    reason = "INVALID_CHECKPOINT"


class ExchangeError(ConfigError):
    """Memory between verifier and drafter that cannot be made, or does not hold what it should."""

    reason = "INVALID_EXCHANGE"


class InvalidRequest(TandemError):
    """A field of a request has a value that cannot be served.

    `field` is its path from the request's root, such as `spec.sampling.temperature`.
    """

    reason = "INVALID_REQUEST"

    def __init__(self, field: str, description: str) -> None:
        """Says what is wrong with the field at path `field`."""
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description


class UnknownModel(TandemError):
    """The request names a model that is not served here."""

    reason = "MODEL_NOT_FOUND"


class Unauthenticated(TandemError):
    """No API key, or one that is not known."""

    reason = "INVALID_API_KEY"


class RetryableError(TandemError):
    """Refused now, likely to be served later; `retry_after_seconds` says when to ask again."""

    reason = "UNAVAILABLE"

    def __init__(self, message: str, retry_after_seconds: float = 1.0) -> None:
        """Says what is missing now, and when to ask again."""
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Exhausted(RetryableError):
    """A finite resource has been used up."""

    reason = "RESOURCE_EXHAUSTED"


class QueueFull(Exhausted):
    """As many requests wait as may wait."""

    reason = "QUEUE_FULL"


class KvCacheFull(Exhausted):
    """The request needs more KV blocks than the whole cache has."""

    reason = "KV_CACHE_FULL"


class RateLimited(Exhausted):
    """The caller took its share of requests or tokens, or has as many requests at a time as it may."""

    reason = "RATE_LIMITED"


class Unavailable(RetryableError):
    """Nobody can serve the request now."""

    reason = "UNAVAILABLE"


class Loading(Unavailable):
    """The model is not warm yet."""

    reason = "LOADING"


class Draining(Unavailable):
    """The process is about to stop and takes no new work."""

    reason = "DRAINING"


class NoReplica(Unavailable):
    """No verifier answers."""

    reason = "NO_REPLICA"


class DeadlineExceeded(TandemError):
    """The caller's deadline passed before the text was complete."""

    reason = "DEADLINE_EXCEEDED"


class EngineFault(TandemError):
    """A defect of ours ended the request."""

    reason = "ENGINE_FAULT"
