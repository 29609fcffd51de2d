"""The gRPC door: the Open Inference Protocol with Triton's extensions. Loaded only when it is switched on."""

import logging
import os

# Before grpcio is imported: it writes a line, or a traceback, for each fault of a client, so that whoever sends garbage
# would fill the disk. What the agent itself has to say goes to its own log.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
logging.getLogger("grpc").setLevel(logging.CRITICAL)
