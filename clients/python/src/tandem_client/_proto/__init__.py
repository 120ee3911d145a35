"""Generated stubs of protos/tandem/v1, under this package so that they meet no other `tandem` that is installed.

The files keep their names in protobuf's pool of descriptors. Another package with the same contract, such as the
server's own, registers the same, and both share the message classes.
"""
