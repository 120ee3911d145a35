"""The nouns every layer shares. Standard library only: nothing here loads torch, grpc or protobuf."""
