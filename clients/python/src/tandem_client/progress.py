"""How far a stream has come."""

from tandem_client._proto.tandem.v1 import generation_service_pb2
from tandem_client.results import Delta, Finished, Started


class Progress:
    """A stream's first and last word, which are kept, and the deltas in between, which are handed on."""

    def __init__(self) -> None:
        """Nothing came yet."""
        self._started: Started | None = None
        self._finished: Finished | None = None

    @property
    def started(self) -> Started:
        """What the stream said first; it is there with the first delta.

        Raises:
            RuntimeError: it has not come yet.
        """
        if self._started is None:
            raise RuntimeError("the stream has not started")
        return self._started

    @property
    def finished(self) -> Finished:
        """What the stream said last; it is there once no delta is left.

        Raises:
            RuntimeError: it has not come yet.
        """
        if self._finished is None:
            raise RuntimeError("the stream has not finished")
        return self._finished

    def _take(self, response: generation_service_pb2.StreamGenerateResponse) -> Delta | None:
        """Keeps a message, or returns the delta that it is."""
        match response.WhichOneof("event"):
            case "started":
                self._started = Started.from_proto(response.started)
            case "delta":
                return Delta.from_proto(response.delta)
            case "finished":
                self._finished = Finished.from_proto(response.finished)
        return None
