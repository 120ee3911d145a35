"""A server that plays a script."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

from tandem_client._proto.tandem.v1 import generation_service_pb2 as pb
from tandem_client._proto.tandem.v1 import generation_service_pb2_grpc, model_service_pb2_grpc, types_pb2


class FakeServer(generation_service_pb2_grpc.GenerationServiceServicer, model_service_pb2_grpc.ModelServiceServicer):
    """Answers each attempt with the next of `answers`, the last one for ever: a function of the call's context."""

    def __init__(self):
        self.answers = []
        self.requests = []
        self.attempts = []  # when each came, and its metadata

    def Generate(self, request, context):
        return self._answer(request, context)

    def StreamGenerate(self, request, context):
        yield from self._answer(request, context)

    def CountTokens(self, request, context):
        return self._answer(request, context)

    def ListModels(self, request, context):
        return self._answer(request, context)

    def GetModel(self, request, context):
        return self._answer(request, context)

    def _answer(self, request, context):
        self.requests.append(request)
        self.attempts.append((time.monotonic(), dict(context.invocation_metadata())))
        return self.answers[min(len(self.attempts), len(self.answers)) - 1](context)


@contextmanager
def serving(credentials=None):
    """A server on a port, over TLS where there are credentials."""
    fake = FakeServer()
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        generation_service_pb2_grpc.add_GenerationServiceServicer_to_server(fake, server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(fake, server)
        if credentials:
            port = server.add_secure_port("127.0.0.1:0", credentials)
        else:
            port = server.add_insecure_port("127.0.0.1:0")
        fake.address = f"127.0.0.1:{port}"
        server.start()
        try:
            yield fake
        finally:
            server.stop(0).wait()


def started(request_id="id"):
    return pb.StreamGenerateResponse(started=types_pb2.Started(request_id=request_id))


def delta(text):
    return pb.StreamGenerateResponse(delta=types_pb2.Delta(text=text, num_tokens=1))


def answered(context):
    """A whole text."""
    return pb.GenerateResponse(output=types_pb2.Delta(text="done"))
