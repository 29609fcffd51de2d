"""A training program for the hub's trainer `command`: fine-tunes a text classifier with transformers and optimum."""
