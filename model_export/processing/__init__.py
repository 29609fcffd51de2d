"""What comes before and after a model, inside the package's graph: pictures, texts and tables in, probabilities out.

A device then needs no code of the model's own. What may be declared is in `steps`, where it is read in `files` and
`guess`, the graphs are in `image`, `text` and `columns`, and `around` puts them around a model that is ready.
"""

from __future__ import annotations

from pathlib import Path

from edgeloop.package import Package
from model_export.data import Table
from model_export.processing import files, guess
from model_export.processing.again import of_package
from model_export.processing.around import put_around, recent_enough, with_output
from model_export.processing.rows import applied, holds_pictures, holds_texts
from model_export.processing.steps import Processing

__all__ = ["Processing", "applied", "declared", "put_around", "recent_enough", "with_output"]


def declared(source: object, file: Path | None, table: Table, base: Package | None = None) -> Processing:
    """What comes before and after a source.

    Args:
        source: what the model is made of.
        file: that the person names; None: ``processing.toml`` inside the source's folder, else what a Hugging Face
            folder says of itself, where the data hold pictures or texts.
        table: the data.
        base: a package that this one shall be like: its processing is taken.

    Raises:
        RequestError: it cannot be read or followed.
        InvalidPackageError: the base's cannot be followed.
    """
    if base is not None:
        return of_package(base)
    if file is not None:
        return files.from_file(file)
    if not isinstance(source, str | Path):
        return Processing()
    path = Path(source)
    if not path.is_dir():
        return Processing()
    if (path / files.NAME).is_file():
        return files.from_file(path / files.NAME)
    return guess.from_folder(path) if holds_pictures(table) or holds_texts(table) else Processing()
