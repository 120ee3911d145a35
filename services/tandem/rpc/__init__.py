"""gRPC for every service: servers, channels, errors on the wire, and protobuf messages as core objects."""
