"""edge-agent: the daemon that runs a model on a device, observes it and updates it safely."""

import os

# NumPy reads this when it is first imported. The agent multiplies small matrices only (the projections of a few hundred
# rows); with OpenBLAS's own threads that took five times the processor time. onnxruntime has threads of its own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
