"""The search of a program's parameters, by Optuna: trial after trial, each of which says what its result is.

What was tried is kept in a journal beside the trials, so that an interrupted search goes on where it was. The sampler
of a trial depends on the seed, the trial's number and the results before it alone: the same data give the same search.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cloud_hub.programs import Parameter, Search
from cloud_hub.training.trainer import Cancelled, TrainingError

_STUDY = "parameters"


@dataclass(frozen=True)
class Found:
    """The best trial.

    Attributes:
        place: its folder.
        parameters: of it.
        result: of it.
        trials: that came to a result.
    """

    place: Path
    parameters: Mapping[str, Any]
    result: float
    trials: int


def search(
    asked: Search,
    root: Path,
    seed: int,
    attempt: Callable[[Path, Mapping[str, Any]], float],
    say: Callable[[str, float | None], None],
) -> Found:
    """Try parameters, and keep the best trial's folder.

    A trial that fails is one without a result; a search of which nothing succeeds fails as its last trial did.

    Args:
        asked: what is searched.
        root: folder of the search; an earlier attempt's is gone on with.
        seed: of the sampler.
        attempt: runs a trial in a folder; raises `TrainingError` when it fails.
        say: told what comes of each trial.

    Raises:
        Cancelled: a trial was stopped.
        TrainingError: Optuna is not installed, or no trial came to a result.
    """
    study, optuna = _study(asked, root)
    states = optuna.trial.TrialState
    failed = TrainingError("the search made no trial")
    while True:
        under_way = study.get_trials(deepcopy=False, states=(states.RUNNING,))
        if not under_way:
            number = len(study.get_trials(deepcopy=False))
            if number >= asked.trials:
                break
            study.sampler = optuna.samplers.TPESampler(seed=(seed + number) % (1 << 32))
            study.ask({name: _distribution(optuna, space) for name, space in sorted(asked.parameters.items())})
            continue
        trial = under_way[0]  # of just now, or of an attempt that was interrupted
        told = f"trial {trial.number + 1} of {asked.trials}"
        try:
            result = attempt(_place(root, trial.number), trial.params)
        except Cancelled:
            raise
        except TrainingError as error:
            failed = error
            study.tell(trial.number, state=states.FAIL)
            say(f"{told} failed: {error}", None)
        else:
            study.tell(trial.number, result)
            say(f"{told}: {result:g} with {trial.params}", (trial.number + 1) / asked.trials)
        _keep_best(study, root)
    done = study.get_trials(deepcopy=False, states=(states.COMPLETE,))
    if not done:
        raise failed
    best = study.best_trial
    return Found(_place(root, best.number), dict(best.params), float(best.value), len(done))


def _study(asked: Search, root: Path) -> tuple[Any, Any]:
    try:
        import optuna
    except ImportError as error:
        raise TrainingError("a search of parameters needs Optuna: pip install 'edgeloop[training]'") from error
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    root.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(root / "journal.log")))
    direction: Literal["maximize", "minimize"] = "maximize" if asked.maximise else "minimize"
    return optuna.create_study(storage=storage, study_name=_STUDY, direction=direction, load_if_exists=True), optuna


def _distribution(optuna: Any, space: Parameter) -> Any:
    if space.choices:
        return optuna.distributions.CategoricalDistribution(space.choices)
    if space.whole:
        return optuna.distributions.IntDistribution(int(space.low or 0), int(space.high or 0), log=space.log)
    return optuna.distributions.FloatDistribution(space.low, space.high, log=space.log)


def _place(root: Path, number: int) -> Path:
    return root / f"trial-{number:04}"


def _keep_best(study: Any, root: Path) -> None:
    """The folders of all other trials go: a search takes no more of the disk than two of them."""
    done = [trial for trial in study.get_trials(deepcopy=False) if trial.value is not None]
    best = {_place(root, study.best_trial.number)} if done else set()
    for place in root.glob("trial-*"):
        if place not in best:
            shutil.rmtree(place, ignore_errors=True)
