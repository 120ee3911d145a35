"""The benchmark of a shape: models without a checkpoint, at full size, on the device that they were made for."""
