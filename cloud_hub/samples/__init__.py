"""Samples: inputs that devices send for retraining, where the owners of both device and channel want that."""
