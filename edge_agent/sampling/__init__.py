"""Samples: inputs that are kept on the device and sent to the hub, where the owners of both want that."""
