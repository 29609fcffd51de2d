"""``python -m cloud_hub``."""

from __future__ import annotations

from cloud_hub.cli import main

main()
