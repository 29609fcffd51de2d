"""The audit: a package from outside is hostile until this has found nothing.

``audit_in_child`` is what agent and hub use: a damaged file that crashes a parser, or that needs more memory than it
may, then costs a child process and nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from edgeloop.package.difference import Base, differences, shared_head
from edgeloop.package.errors import PackageError
from edgeloop.package.graph_limits import GraphLimits
from edgeloop.package.index import Index, check_path, hash_file
from edgeloop.package.manifest import MANIFEST, Manifest, asset_folder, required_paths
from edgeloop.package.opening import read_manifest
from edgeloop.records import dataclass

#: Memory that the child may use; a graph of the largest size and its parsed form fit.
CHILD_MEMORY_BYTES = 4 << 30


@dataclass(frozen=True)
class Limits:
    """Bounds of a package: bytes and files in all, and those of each graph."""

    total_bytes: int = 64 << 30
    files: int = 20_000
    graph: GraphLimits = field(default_factory=GraphLimits)


def audit(
    root: Path,
    *,
    index: Index | None = None,
    variants: tuple[str, ...] | None = None,
    allow_hard_links: bool = False,
    base: Base | None = None,
    limits: Limits | None = None,
) -> Manifest:
    """Check everything that can be checked without running the model.

    Args:
        root: the package's folder.
        index: of the release; every file has to be in it, with its bytes. None: whatever lies there is the package.
        variants: names of the variants whose files are there; None: all of them. A device holds only what it may run.
        allow_hard_links: the folder was made of hard links by ourselves.
        base: the release from which this one was retrained, and of which it may change the head alone; None: it was
            not.
        limits: bounds.

    Raises:
        PackageError: with every problem that was found.
    """
    from edgeloop.package.audit_graph import audit_graph  # imports onnx, which only the child pays for

    root, limits = Path(root), limits or Limits()
    problems = _files(root, index, allow_hard_links=allow_hard_links, limits=limits)
    try:
        manifest = read_manifest(root)
    except PackageError as error:
        raise PackageError([*error.problems, *problems]) from error
    chosen = tuple(manifest.variants) if variants is None else variants
    try:
        listed = index or Index.of_folder(root)
        required = required_paths(manifest, listed, chosen)
    except PackageError as error:
        raise PackageError([*problems, *error.problems]) from error
    wanted = listed.entries if variants is None else required
    problems += [f"{entry.path} is missing; fetch it again" for entry in wanted if not (root / entry.path).is_file()]
    problems += _unreferenced(manifest, {entry.path for entry in listed.entries})
    for name in chosen:
        variant = manifest.variants[name]
        assets = None if variant.weights_uri is None else root / asset_folder(variant.weights_uri)
        path = root / variant.model_file
        if path.is_file() and not path.is_symlink():
            problems += audit_graph(
                path, variant.model_file, assets, set(variant.tensors), limits.graph, manifest.meta.needs
            )
    if base is not None and not problems:
        problems = differences(base, listed, manifest) or shared_head(root, manifest, chosen)
    if problems:
        raise PackageError(problems)
    return manifest


def _files(root: Path, index: Index | None, *, allow_hard_links: bool, limits: Limits) -> list[str]:
    problems, total, count = [], 0, 0
    if not root.is_dir() or root.is_symlink():
        raise PackageError(f"{root} is no folder")
    for folder, folders, files in os.walk(root, followlinks=False):
        for name in (*folders, *files):
            path = Path(folder) / name
            inside = path.relative_to(root).as_posix()
            if path.is_symlink():
                problems.append(f"{inside} is a symlink; a package holds files and folders only")
            elif name in files:
                count += 1
                total += path.stat().st_size
                problems += _file(path, inside, index, allow_hard_links=allow_hard_links)
    if count > limits.files:
        problems.append(f"{count:,} files; at most {limits.files:,}")
    if total > limits.total_bytes:
        problems.append(f"{total:,} bytes; at most {limits.total_bytes:,}")
    return problems


def _file(path: Path, inside: str, index: Index | None, *, allow_hard_links: bool) -> list[str]:
    try:
        check_path(inside)
    except PackageError as error:
        return list(error.problems)
    if not path.is_file():
        return [f"{inside} is no regular file"]
    if path.stat().st_nlink > 1 and not allow_hard_links:
        return [f"{inside} is a hard link; it could be another file of this machine: copy it"]
    return [] if index is None else _against(index, path, inside)


def _against(index: Index, path: Path, inside: str) -> list[str]:
    entry = index.by_path.get(inside)
    if entry is None:
        return [f"{inside} is not in the index; remove it"]
    if path.stat().st_size != entry.size or hash_file(path) != entry.sha256:
        return [f"{inside} has changed; its SHA-256 is not the index's"]
    return []


def _unreferenced(manifest: Manifest, here: set[str]) -> list[str]:
    """Files that nothing in the manifest leads to have no business in a package."""
    meta = manifest.meta
    uris = [*meta.golden.values(), *(meta.profile or {}).values(), *([meta.validation] if meta.validation else [])]
    uris += [variant.weights_uri for variant in manifest.variants.values() if variant.weights_uri]
    folders = {asset_folder(uri) for uri in uris} | {variant.directory for variant in manifest.variants.values()}
    stray = [p for p in here if p != MANIFEST and not any(p.startswith(f"{folder}/") for folder in folders)]
    return [f"{path} belongs to no variant and no asset of the manifest; remove it" for path in sorted(stray)[:20]]


def audit_in_child(
    root: Path,
    *,
    index: Index | None = None,
    variants: tuple[str, ...] | None = None,
    allow_hard_links: bool = False,
    base: Base | None = None,
    timeout_s: float = 120.0,
) -> Manifest:
    """`audit` in a child process with a limit on time and, on Linux, on memory.

    Raises:
        PackageError: as `audit`; also when the child was killed by the limits or crashed.
    """
    request = {
        "root": str(root),
        "index": None if index is None else index.to_bytes().decode(),
        "variants": variants,
        "allow_hard_links": allow_hard_links,
        "base": None if base is None else [base.index.to_bytes().decode(), json.dumps(base.manifest.raw)],
    }
    problems = _problems_by_child(request, timeout_s)
    if problems:
        raise PackageError(problems)
    return read_manifest(Path(root))


def audit_model_in_child(path: Path, *, timeout_s: float = 120.0) -> None:
    """Check a graph that is no package yet, with the external data that lies beside it, as `audit_in_child` does.

    Raises:
        PackageError: with every problem that was found; also when the child was killed by the limits or crashed.
    """
    problems = _problems_by_child({"model": str(path)}, timeout_s)
    if problems:
        raise PackageError(problems)


def _problems_by_child(request: Mapping[str, Any], timeout_s: float) -> list[str]:
    try:
        done = subprocess.run(
            # -P: a file named json.py in the folder that we stand in, maybe the package itself, is not imported.
            [sys.executable, "-P", "-c", "import sys; from edgeloop.package.audit import main; sys.exit(main())"],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PackageError(
            f"the audit took longer than {timeout_s:.0f} s and was stopped; the package is refused"
        ) from error
    try:
        problems = json.loads(done.stdout)
        if done.returncode:
            raise ValueError
    except ValueError as error:
        end = "".join(done.stderr.decode(errors="replace").strip().splitlines()[-1:])[:200]
        raise PackageError(
            f"the audit ended with status {done.returncode} and no verdict; the package is refused. {end}"
        ) from error
    return [str(problem) for problem in problems]


def main() -> int:
    """The child: a request as JSON on standard input, the list of problems as JSON on standard output."""
    request = json.load(sys.stdin)
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (CHILD_MEMORY_BYTES, CHILD_MEMORY_BYTES))
    json.dump(_model(Path(request["model"])) if "model" in request else _package(request), sys.stdout)
    return 0


def _package(request: Mapping[str, Any]) -> list[str]:
    try:
        audit(
            Path(request["root"]),
            index=None if request["index"] is None else Index.parse(request["index"].encode()),
            variants=None if request["variants"] is None else tuple(request["variants"]),
            allow_hard_links=request["allow_hard_links"],
            base=None if request["base"] is None else _base(*request["base"]),
        )
    except PackageError as error:
        return list(error.problems)
    return []


def _model(path: Path) -> list[str]:
    """A graph and what lies beside it: files with one name each, in one folder."""
    from edgeloop.package.audit_graph import audit_graph

    files = sorted(path.parent.iterdir())
    for file in files:
        if file.is_symlink() or not file.is_file() or file.stat().st_nlink > 1:
            return [f"{file.name} is no plain file of its own; beside a model lie the files of its tensors only"]
    if path not in files:
        return [f"there is no {path.name}"]
    return audit_graph(path, path.name, path.parent, {file.name for file in files}, Limits().graph)


def _base(index: str, manifest: str) -> Base:
    return Base(Index.parse(index.encode()), Manifest.parse(manifest.encode()))
