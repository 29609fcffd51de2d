"""Signing a release: its index becomes the next target of its model's publishers, and the hub takes that first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata

from edgeloop.package import Package
from edgeloop.trust import checking, repository
from edgeloop.trust.checking import Chain
from edgeloop.trust.names import RELEASES, ReleasePath, file_name, release_role
from edgeloop.trust.state import TrustState
from model_export.errors import HubRefusedError, KeyFileError, RequestError, SignaturesMissingError, UntrustedError
from model_export.hub import Hub
from model_export.trust import syncing
from model_export.trust.folder import TrustFolder, asked
from model_export.trust.provenance import Documents

RACES = 5
"""Times that a release is signed again because another publisher was faster."""


class ReleaseSigner:
    """Signs packages for a hub.

    Args:
        hub: that shall take them.
        folder: with the root that its owner believes; also where a release waits for more signatures.
        signers: keys of publishers; none of them signs a model that it was not allowed for. May be empty when the
            release waits in the folder and everybody has signed.
    """

    def __init__(self, hub: Hub, folder: TrustFolder, signers: Sequence[Signer]) -> None:
        self._hub, self._folder, self._signers = hub, folder, signers

    def sign(self, package: Package) -> ReleasePath:
        """Have the hub name this package as its model's newest release.

        Safe to repeat: where the newest release is this one already, nothing is signed.

        Returns:
            The release's path among the fleet's targets.

        Raises:
            KeyFileError: no key may publish this model.
            SignaturesMissingError: other publishers have to sign as well; it waits in the folder.
            UntrustedError: what the hub has is not signed as the folder's root says.
            HubRefusedError: other publishers were faster `RACES` times, or the hub refused for another reason.
        """
        with asked():
            role = release_role(package.name)
        for race in range(1, RACES + 1):
            now = datetime.now(UTC)
            state = syncing.state_of(self._hub)
            chain = syncing.chain(self._hub, self._folder, state, now)
            newest = self._newest(chain, role, state)
            if newest is not None and not newest.signed.is_expired(now):
                found = repository.find_release(newest.signed, package.digest)
                if found is not None and found.counter == repository.newest_counter(newest.signed):
                    return found
            draft = self._signed(chain, role, newest, package, state, now)
            try:
                syncing.put(self._hub, role, draft.to_bytes())
                return ReleasePath(package.name, repository.newest_counter(draft.signed))
            except HubRefusedError as error:
                if error.status != 409:
                    raise
                if race == RACES:
                    raise HubRefusedError(
                        f"{error}; tried {RACES} times", error.hint or "others publish this model: try again", 409
                    ) from error
        raise AssertionError  # the loop returns or raises

    def vouch(self, documents: Documents) -> Documents:
        """What is known of how a package was built, signed by the same keys.

        Raises:
            KeyFileError: a key's device refused.
        """
        with asked():
            return documents.signed(*self._signers)

    def _newest(self, chain: Chain, role: str, state: TrustState) -> Metadata[Any] | None:
        if role not in repository.delegated(chain.targets.signed):
            raise RequestError(
                f"nobody may publish {role.partition('.')[2]} in this fleet yet",
                "a holder of the targets key allows it: model-export keys allow",
            )
        return syncing.role_of(self._hub, chain, role, state)

    def _signed(
        self, chain: Chain, role: str, newest: Metadata[Any] | None, package: Package, state: TrustState, now: datetime
    ) -> Metadata[Any]:
        """The next version of the role, with as many signatures as it needs."""
        targets = chain.targets.signed
        allowed = {key.keyid for key in repository.keys_of(targets, role)[0]}
        fitting = [signer for signer in self._signers if signer.public_key.keyid in allowed]
        draft = self._waiting(role, newest, package)
        if draft is None:
            if not self._signers:
                raise KeyFileError(f"{package.name} has to be signed, and no key was given", "--key NAME.key")
            if not fitting:
                raise KeyFileError(
                    f"none of the keys may publish {package.name}",
                    f"a holder of the targets key allows it: model-export keys allow FOLDER {package.name} KEY.pub",
                )
            draft = repository.new_role(role, now=now) if newest is None else repository.draft(newest, role, now=now)
            index = package.index.to_bytes()
            repository.add_release(draft.signed, package.name, package.digest, len(index))
            repository.prune(draft.signed, state.named, repository.KEPT[RELEASES])
        with asked():
            repository.sign(draft, *fitting)
        found = checking.progress(targets, role, draft)
        if found.missing:
            self._folder.write(role, draft)
            name = file_name(role, draft.signed.version)
            raise SignaturesMissingError(
                f"{package.name} waits in {self._folder.path / name} for {found.missing} more of "
                f"{found.threshold} signatures",
                f"another publisher: model-export keys sign {self._folder.path} --key KEY; then publish again",
            )
        return draft

    def _waiting(self, role: str, newest: Metadata[Any] | None, package: Package) -> Metadata[Any] | None:
        """What waits in the folder for signatures, when it is the next version."""
        version = newest.signed.version + 1 if newest else 1
        if version not in self._folder.versions(role):
            return None
        waiting: Metadata[Any] = checking.read_targets(self._folder.read(role, version), role)
        before = newest.signed.targets if newest else {}
        found = repository.find_release(waiting.signed, package.digest)
        if found is None or found.counter != repository.newest_counter(waiting.signed) or str(found) in before:
            raise UntrustedError(
                f"{self._folder.path / file_name(role, version)} is about another release than {package.digest}",
                "publish that one first, or remove the file",
            )
        return waiting
