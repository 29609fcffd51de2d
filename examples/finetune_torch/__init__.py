"""A training program for the hub's trainer `command`: fine-tunes a small network with PyTorch."""
