"""Every figure that the documents quote, as a script that anyone can run: ``python -m benchmarks.NAME``."""

import os

# What is measured here are programs on loopback; a benchmark of trust turns it on again.
os.environ.setdefault("CLOUD_HUB_INSECURE", "true")
os.environ.setdefault("EDGE_AGENT_INSECURE", "true")
