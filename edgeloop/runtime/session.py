"""A session: one variant of a package on one provider. The only place that runs ONNX."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop.package import OutputSpec, Package, TensorSpec
from edgeloop.runtime.compiled import Compiled
from edgeloop.runtime.datatypes import ORT_TO_OIP
from edgeloop.runtime.deadline import NEVER, WATCHDOG
from edgeloop.runtime.errors import DeadlineExceeded, InferenceError, ModelLoadError, ProviderError, Stopped
from edgeloop.runtime.launch import Launch, wants_files
from edgeloop.runtime.loading import first_line, open_session, zeros_for
from edgeloop.runtime.memory import trim_memory
from edgeloop.runtime.options import ProviderOptions
from edgeloop.runtime.ort import ort
from edgeloop.runtime.placement import placement_of
from edgeloop.runtime.policy import Policy, threads_of
from edgeloop.runtime.providers import CPU, available_providers, missing_because

Array = npt.NDArray[Any]


class ModelSession:
    """A loaded model.

    Attributes:
        package: where it comes from.
        variant: name of the variant.
        provider: the provider that was asked for and really runs nodes.
        placement: provider → number of nodes that really run there.
        inputs: what a run takes.
        outputs: what a run can give, with roles.
        threads: of one run.
        instances: runs at once that the policy's threads allow; a session may be used by several threads.
    """

    def __init__(self, package: Package, variant: str, launch: Launch, session: Any) -> None:
        self.package, self.variant = package, variant
        self.provider, self.threads = launch.provider, launch.threads
        self.instances = max(1, threads_of(launch.policy) // launch.threads)
        self._session = session
        # The call below the wrapper: the wrapper checks names that are checked here already, which takes a quarter of a
        # small model's run, and answers a provider's failure by going on with another one without a word.
        self._run = session._sess.run
        self._one_row = all(value.shape[:1] == [1] for value in session.get_inputs()) and _free_rows(package)
        if self._one_row:  # NPUs take fixed shapes alone
            self.run_in_blocks(1)
        self._names = [value.name for value in session.get_outputs()]
        self.placement = placement_of(session, lambda: zeros_for(session))
        roles = {output.name: output.role for output in package.meta.outputs}
        self.inputs = tuple(TensorSpec(v.name, _datatype(v), self._shape(v)) for v in session.get_inputs())
        self.outputs = tuple(
            OutputSpec(v.name, _datatype(v), self._shape(v), roles.get(v.name, "other")) for v in session.get_outputs()
        )

    @classmethod
    def load(
        cls,
        package: Package,
        variant: str,
        provider: str = CPU,
        *,
        policy: Policy = "balanced",
        threads: int | None = None,
        allow_cpu_fallback: bool = False,
        options: Mapping[str, ProviderOptions] | None = None,
        compiled: Compiled | None = None,
    ) -> ModelSession:
        """Load a variant.

        Args:
            package: the package.
            variant: name of one of its variants.
            provider: execution provider by ONNX Runtime's name.
            policy: how much of the machine it may take.
            threads: for one run; None: the most that the policy allows.
            allow_cpu_fallback: whether nodes that the provider does not support may run on the CPU.
            options: the owner's options, by provider.
            compiled: where what the provider compiles is kept; None: nowhere.

        Raises:
            ProviderError: the provider is not there, or would not run the whole model.
            ModelLoadError: ONNX Runtime refused the model.
        """
        spec = package.variants.get(variant)
        if spec is None:
            raise ModelLoadError(f"there is no variant {variant!r}; there are {', '.join(package.variants)}")
        if provider not in available_providers():
            raise ProviderError(missing_because(provider))
        # Providers that read or write files get a folder in any case; one of this session alone goes with it.
        own = Compiled.temporary() if compiled is None and wants_files(provider) else None
        launch = Launch(
            provider, policy, threads or threads_of(policy), allow_cpu_fallback, options or {}, compiled or own
        )
        try:
            loaded = cls(package, variant, launch, open_session(package, spec, launch))
            if loaded.placement and provider not in loaded.placement:
                raise ProviderError(
                    f"{variant}: {provider} was asked for, and {', '.join(loaded.placement)} would run every node"
                )
        except Exception as error:
            if own is not None:
                own.drop()
            if isinstance(error, ModelLoadError):
                raise
            raise ModelLoadError(f"{variant} on {provider}: {first_line(error)}") from error
        if own is not None:
            weakref.finalize(loaded, own.drop)
        return loaded

    def run(
        self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None, deadline_s: float | None = None
    ) -> list[Array]:
        """Run the model.

        Args:
            inputs: by name, of the shapes and dtypes of ``self.inputs``.
            outputs: names of the outputs that are wanted; None: all.
            deadline_s: seconds after which the run is stopped; None: never.

        Raises:
            DeadlineExceeded: it took too long.
            Stopped: another thread has stopped it through this thread's guard.
            InferenceError: the model failed on this input.
        """
        guard = WATCHDOG.guard()
        end = guard.at = NEVER if deadline_s is None else time.monotonic() + deadline_s
        if WATCHDOG.asleep and deadline_s is not None:
            WATCHDOG.wake()
        try:
            found: list[Array] = self._run(self._names if outputs is None else outputs, inputs, guard.options)
        except InferenceError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions have no common root
            if guard.late and time.monotonic() < end:
                # The alarm of the run before came late, in the moment between the two.
                guard.renew()
                return self.run(inputs, outputs, deadline_s)
            if guard.late and deadline_s is not None:
                raise DeadlineExceeded(deadline_s) from error
            if guard.used:
                raise Stopped("nobody waits for this run any more") from error
            raise InferenceError(first_line(error)) from error
        finally:
            guard.at = NEVER
            if guard.used:
                guard.renew()
        return found

    def run_in_blocks(self, rows: int) -> None:
        """Let every run have so many rows: fewer are filled up, of which the caller sees nothing, and more go in turn.

        For a graph that takes no other number, and for a provider that prepares itself anew whenever it changes. The
        rows of the model must not depend on one another.
        """
        self._run = _in_blocks(self._session._sess.run, rows)

    def _shape(self, value: Any) -> tuple[int, ...]:
        shape = tuple(length if isinstance(length, int) else -1 for length in value.shape)
        return (-1, *shape[1:]) if self._one_row and shape else shape

    def shrink(self, inputs: Mapping[str, Array]) -> None:
        """Run once more, and give the memory back that larger runs before it have needed.

        ONNX Runtime's arenas keep what they once had (``memory.enable_memory_arena_shrinkage`` in its
        ``onnxruntime_run_options_config_keys.h``).

        Args:
            inputs: by name; of the size that is usual.
        """
        options = ort.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        try:
            self._run(self._names, inputs, options)
        except Exception:
            # A session whose policy gives it no arena says so; then there is nothing to give back.
            return
        trim_memory()

    def output(self, role: str) -> str | None:
        """Name of the first output with a role, or None."""
        return self.roles.get(role)

    @cached_property
    def roles(self) -> dict[str, str]:
        """Role → name of the first output that has it."""
        return {output.role: output.name for output in reversed(self.outputs)}

    def probabilities(self, outputs: Mapping[str, Array]) -> Array | None:
        """Probabilities [N, K] from a run's outputs by name; None when neither they nor logits are there."""
        return probabilities_of(self.roles, outputs)

    def close(self) -> None:
        """Free the model's memory; a run after this fails."""
        self._session = None
        self._run = _closed
        trim_memory()


def probabilities_of(roles: Mapping[str, str], outputs: Mapping[str, Array]) -> Array | None:
    """Probabilities [N, K] from outputs by name: as they are, or the softmax of the logits."""
    if (name := roles.get("probabilities", "")) in outputs:
        return outputs[name]
    if (name := roles.get("logits", "")) in outputs:
        logits = outputs[name].astype(np.float64)
        exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.asarray(exp / exp.sum(axis=-1, keepdims=True))
    return None


def _free_rows(package: Package) -> bool:
    """Whether callers may send any number of rows."""
    return all(spec.shape[:1] == (-1,) for spec in package.meta.inputs)


def _in_blocks(run: Callable[..., list[Array]], size: int) -> Callable[..., list[Array]]:
    """Runs of one number of rows, for callers with any."""

    def each(names: Sequence[str], inputs: Mapping[str, Array], options: Any) -> list[Array]:
        rows = len(next(iter(inputs.values())))
        if rows == size:
            return run(names, inputs, options)
        found = [
            run(names, {name: _block(array, start, size) for name, array in inputs.items()}, options)
            for start in range(0, rows, size)
        ]
        if len(found) == 1:
            return [array[:rows] for array in found[0]]
        return [np.concatenate(parts)[:rows] for parts in zip(*found, strict=True)]

    return each


def _block(array: Array, start: int, size: int) -> Array:
    """Rows of one run; where there are too few, the first of them comes again."""
    part = array[start : start + size]
    return part if len(part) == size else np.concatenate([part, np.repeat(part[:1], size - len(part), axis=0)])


def _closed(*_: object) -> list[Array]:
    raise InferenceError("the session is closed")


def _datatype(value: Any) -> str:
    return ORT_TO_OIP.get(value.type, str(value.type))
