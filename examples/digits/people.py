"""What people do, and no program does for them: keys that stay offline, who may publish, which devices belong.

Everything is done by the commands that a person would type; the docs' how-tos go through the same steps by hand. The
keys have no passphrases here, since nobody is there to type them.
"""

from __future__ import annotations

import json
import re
import ssl
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from examples.digits.processes import ProcessFailed, command, environment

MODEL = "digits"
_TOKEN = re.compile(r"shown this once: (\S+)")


class People:
    """The keepers of root and targets, a publisher, and whoever runs the hub.

    Args:
        folder: their own: keys and signed metadata. None of it is the hub's or a device's.
        hub_url: address of the hub.
        hub_data: the hub's data folder, which only whoever runs the hub reads.
    """

    def __init__(self, folder: Path, hub_url: str, hub_data: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.hub_url, self.hub_data = hub_url, hub_data
        self._folder, self._metadata = folder, folder / "fleet"
        self.token = ""

    @property
    def ca(self) -> Path:
        """The certificate by which the hub is known: its operator hands it to whoever uses the hub."""
        return self.hub_data / "identity" / "ca.crt"

    @property
    def root(self) -> Path:
        """The fleet's first root metadata, which every device is given."""
        return self._metadata / "1.root.json"

    def make_keys(self) -> None:
        """Three keys for three people; in earnest on three machines."""
        names = ("root", "targets", "publisher")
        _at_once([("model-export", "keys", "create", str(self._folder / name), "--no-passphrase") for name in names])

    def take_admin_token(self, said_by_hub: str) -> None:
        """What the hub shows at its first start, once."""
        if (found := _TOKEN.search(said_by_hub)) is None:
            raise ProcessFailed("the hub has shown no administrator's token")
        self.token = found[1]

    def sign_the_fleet(self) -> None:
        """Root and targets: the hub's own keys are given their roles, the publisher may publish one model."""
        root, targets, publisher = (self._folder / name for name in ("root", "targets", "publisher"))
        keys = ("--key", f"{root}.key", "--key", f"{targets}.key")
        roles = ("--root", f"{root}.pub", "--targets", f"{targets}.pub")
        self.export("keys", "init", str(self._metadata), *roles, *keys, *self._at_hub())
        publishers = (MODEL, f"{publisher}.pub", "--key", f"{targets}.key")
        self.export("keys", "allow", str(self._metadata), *publishers)
        self.export("keys", "push", str(self._metadata), *self._at_hub())

    def publish(self, package: Path, channel: str) -> dict[str, Any]:
        """Sign a package as the publisher, and send it."""
        signed = ("--key", f"{self._folder / 'publisher'}.key", "--trust", str(self._metadata))
        return self.export("publish", str(package), "--channel", channel, *signed, *self._at_hub())

    def enrol(self, settings: Sequence[Path], devices: str) -> None:
        """Bring one token to every device; each makes its own key, and gets a certificate for it."""
        uses = ("--device", devices, "--uses", str(len(settings)), "--data", str(self.hub_data), "--json")
        token = json.loads(_run(("cloud-hub", "enrolment", "create", *uses)))["token"]
        brought = ("--hub", self.hub_url, "--token", token, "--root", str(self.root))
        _at_once([("edge-agent", "enrol", "--config", str(one), *brought) for one in settings])

    def lineage(self, release: str) -> str:
        """The whole chain that led to a release, from the hub's records, whether it runs or not."""
        return _run(("cloud-hub", "lineage", release, "--data", str(self.hub_data)))

    def observer(self) -> ssl.SSLContext:
        """How to look on at the broker: with a certificate that may read everything, and write nothing."""
        context = ssl.create_default_context(cafile=self.ca)
        own = self.hub_data / "identity"
        context.load_cert_chain(own / "observer.crt", own / "observer.key")
        return context

    def export(self, *arguments: str) -> dict[str, Any]:
        """``model-export … --json``: what it printed; raises `ProcessFailed` when it failed."""
        return dict(json.loads(_run(("model-export", *arguments, "--json"))))

    def _at_hub(self) -> tuple[str, ...]:
        return ("--hub", self.hub_url, "--token", self.token, "--ca-cert", str(self.ca))


def _at_once(commands: Sequence[Sequence[str]]) -> None:
    with ThreadPoolExecutor(len(commands)) as pool:
        list(pool.map(_run, commands))


def _run(arguments: Sequence[str]) -> str:
    """What a command prints.

    Raises:
        ProcessFailed: it ended with a status other than 0.
    """
    argv = [command(arguments[0]), *arguments[1:]]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300, env=environment())
    if done.returncode:
        said = f"{done.stderr[-2000:]}{done.stdout[-500:]}"
        raise ProcessFailed(f"{' '.join(argv[:3])} … ended with {done.returncode}:\n{said}")
    return done.stdout
