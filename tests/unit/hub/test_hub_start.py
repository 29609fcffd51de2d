"""A hub that cannot start leaves nothing open that would keep the next one from starting."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloud_hub.app import Hub
from cloud_hub.settings import Settings


def test_a_hub_that_cannot_start_lets_go_of_its_data_folder(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, insecure=True, broker="none", broker_port=9)
    in_the_way = tmp_path / "blobs"
    in_the_way.write_bytes(b"")
    with pytest.raises(OSError, match="blobs"):
        Hub(settings)
    in_the_way.unlink()
    hub = Hub(settings)  # the folder is free, though the failure that holds the first hub's frames is still known
    try:
        assert hub.addresses.broker == ("127.0.0.1", 9)
        assert hub.addresses.local_url == "http://127.0.0.1:8800"
    finally:
        hub.stop()
