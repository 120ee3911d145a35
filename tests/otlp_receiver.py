"""A collector in the test's own process: OTLP over gRPC."""

from concurrent import futures
from contextlib import contextmanager

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Received:
    """What came."""

    def __init__(self):
        self.spans = []  # service and span
        self.metrics = {}  # service -> metric names
        self.raw = []  # every message, as text

    def trace(self, trace_id):
        """The spans of a trace: id -> service and span."""
        return {span.span_id: (service, span) for service, span in self.spans if span.trace_id.hex() == trace_id}


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, received):
        self._received = received

    def Export(self, request, context):
        self._received.raw.append(str(request))
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self._received.spans.extend((_service(resource), span) for span in scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, received):
        self._received = received

    def Export(self, request, context):
        self._received.raw.append(str(request))
        for resource in request.resource_metrics:
            names = {metric.name for scope in resource.scope_metrics for metric in scope.metrics}
            self._received.metrics.setdefault(_service(resource), set()).update(names)
        return metrics_service_pb2.ExportMetricsServiceResponse()


def _service(resource):
    return next(one.value.string_value for one in resource.resource.attributes if one.key == "service.name")


@contextmanager
def receiver():
    """Listens on a free port; gives what it receives, and its endpoint."""
    received, server = Received(), grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Traces(received), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(received), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield received, f"http://127.0.0.1:{port}"
    finally:
        server.stop(0)
