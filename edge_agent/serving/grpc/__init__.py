"""The gRPC door: the Open Inference Protocol with Triton's extensions. Loaded only when it is switched on."""
