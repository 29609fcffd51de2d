"""The candidates of a trial are brought to the device: the files of the variants that may run here, audited."""

from __future__ import annotations

from edge_agent.ports import Vouched
from edge_agent.trials.files import TrialFiles
from edge_agent.trials.under_way import Ended, UnderWay
from edge_agent.updates.errors import Transient, UpdateError
from edge_agent.updates.fetch import Fetched, Fetcher, FetchLimits
from edge_agent.updates.rules import Offer
from edge_agent.updates.space import shortage
from edgeloop.package import Package, PackageError, audit_in_child
from edgeloop.protocol.trials import CHECKING, FETCHING
from edgeloop.runtime import usable_providers

#: Between two tries to fetch, seconds; a hub that cannot be reached is asked so often.
FETCH_PAUSE_S, MOST_FETCHES = 5.0, 6


def fetch(trial: UnderWay) -> tuple[Package, Fetched]:
    """Bring what is to be measured.

    Raises:
        Ended: it cannot be had, or is none that may run.
        Dropped: nobody waits for an answer now.
    """
    request, settings = trial.request, trial.around.settings()
    limits = settings.limits
    if reason := shortage(settings.data, 0, reserve=limits.disk_reserve_bytes, quota=limits.disk_quota_bytes):
        raise Ended(reason)
    trial.tell(FETCHING, f"fetching {request.name}")
    try:
        files = TrialFiles(settings.data)
        fetched = _files(trial, files)
        trial.tell(CHECKING, f"auditing {request.name}")
        folder = files.assemble(request.digest, fetched.entries)
        audit_in_child(
            folder,
            index=fetched.index,
            variants=fetched.variants,
            allow_hard_links=True,
            timeout_s=settings.audit_timeout_s,
        )
        return Package.open(folder, index=fetched.index), fetched
    except OSError as error:
        raise Ended(f"the candidates cannot be put together in {settings.data}: {error}") from error
    except PackageError as error:
        raise Ended(f"audit: {error}") from error


def _files(trial: UnderWay, files: TrialFiles) -> Fetched:
    """Bring what is not here yet, in a few tries."""
    request, around, settings = trial.request, trial.around, trial.around.settings()
    limits = settings.limits
    bounds = FetchLimits(
        max_release_bytes=min(limits.max_release_bytes, around.rules.max_bytes),
        disk_reserve_bytes=limits.disk_reserve_bytes,
        disk_quota_bytes=2 * around.rules.max_bytes,  # what is linked in counts there, too
        max_bytes_per_s=limits.max_bytes_per_s,
    )
    offer = Offer(request.digest, request.name, "", None, around.hub(), request.index_size)
    attempt = 0
    while True:
        attempt += 1
        try:
            with Fetcher(
                files,
                bounds,
                hub=settings.hub,
                providers=usable_providers(allowed=settings.tests.allowed_providers),
                required=settings.tests.required_providers,
                received=lambda count: None,
                make_room=lambda spare: None,
                interrupted=trial.unwanted,
                tls=settings.tls,
                index_path=lambda digest: f"/api/v1/blobs/{digest.removeprefix('sha256:')}",
            ) as fetcher:
                return fetcher.fetch(offer, Vouched(model=request.name))
        except Transient as error:
            trial.go_on()
            if attempt == MOST_FETCHES:
                raise Ended(str(error)) from error
            trial.tell(FETCHING, str(error))
            trial.go_on(FETCH_PAUSE_S)
        except UpdateError as error:
            raise Ended(str(error)) from error
