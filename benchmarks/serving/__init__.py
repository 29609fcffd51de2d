"""Serving, compared: the agent beside onnxruntime in process, a bare loop, and the Python servers that people use."""
