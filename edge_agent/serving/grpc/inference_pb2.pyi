from typing import Any

def __getattr__(name: str) -> Any: ...  # what protobuf makes of inference.proto at run time
