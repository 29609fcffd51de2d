"""One program for each peer, run by the Python of that peer's environment: ``python FILE MODEL DATA OUTPUT``.

``MODEL`` is float32 ONNX, ``DATA`` an ``.npz`` with rows of each input and ``label``; ``OUTPUT`` becomes ONNX. They
know nothing of edgeloop.
"""
