"""Samples: which inputs a device keeps for retraining, where its owner and its channel's owner both want that."""
