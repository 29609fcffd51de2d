"""The one way to the hub's records, and the only place that knows that they are in SQLite.

SQLite before 3.51.3 can damage a file when several connections write in WAL mode, so there is **one** writing
connection a file, used under a lock; readers have connections of their own that cannot write.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    Engine,
    Insert,
    MetaData,
    Select,
    Table,
    Update,
    bindparam,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.pool import QueuePool, StaticPool
from sqlalchemy.sql.compiler import SQLCompiler

log = logging.getLogger(__name__)

#: Every table of the hub; tables.py and decision_tables.py add theirs. Names make later migrations possible.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

READERS = 8
#: Values in one ``IN``, a power of two: SQLite takes 32,766, older ones 999.
_MOST_VALUES = 512
T = TypeVar("T")


class Database:
    """Transactions over the hub's records.

    Args:
        url: an SQLAlchemy URL, ``sqlite:///…/hub.db`` for a file.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._sqlite = make_url(url).get_backend_name() == "sqlite"
        self._lock = threading.RLock()
        self._local = threading.local()
        self._writer = self._engine(writing=True)
        self._reader = self._engine(writing=False) if self._sqlite else self._writer

    @classmethod
    def in_folder(cls, folder: Path) -> Database:
        """The database ``hub.db`` in ``folder``, which is made where it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        return cls(f"sqlite:///{folder / 'hub.db'}")

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One writing transaction: committed at the end, rolled back when the block raises.

        A ``begin`` inside another one of the same thread joins it, so several stores can change together. What has
        to happen after the commit, such as a publish, is given to :meth:`after_commit`.
        """
        outer: Connection | None = getattr(self._local, "writing", None)
        if outer is not None:
            yield outer
            return
        callbacks: list[Callable[[], object]] = []
        with self._lock if self._sqlite else _no_lock(), self._writer.begin() as connection:
            self._local.writing, self._local.callbacks = connection, callbacks
            try:
                yield connection
            finally:
                self._local.writing = self._local.callbacks = None
        for callback in callbacks:
            try:
                callback()
            except Exception:  # the change itself is committed: its caller must not be told that it failed
                log.exception("what follows a commit failed")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One reading transaction: it sees one state of all tables, and in a ``begin`` of its thread that one's."""
        outer: Connection | None = getattr(self._local, "writing", None)
        if outer is not None:
            yield outer
            return
        with self._reader.connect() as connection:
            yield connection

    def after_commit(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when the transaction of this thread has been committed; at once when there is none."""
        callbacks: list[Callable[[], object]] | None = getattr(self._local, "callbacks", None)
        if callbacks is None:
            callback()
        else:
            callbacks.append(callback)

    def migrate(self) -> None:
        """Bring the tables to the newest version; safe to call at every start."""
        from cloud_hub.records.migrate import upgrade

        with self._lock, self._writer.begin() as connection:
            upgrade(connection)

    def check_writable(self) -> None:
        """Raise SQLAlchemy's error when the records cannot be written now."""
        with self.begin() as connection:
            connection.execute(text("UPDATE marks SET last = last WHERE 1 = 0"))

    def close(self) -> None:
        """Close every connection; the last one folds SQLite's log into the file."""
        with self._lock:
            self._reader.dispose()
            self._writer.dispose()

    def _engine(self, *, writing: bool) -> Engine:
        if not self._sqlite:
            return create_engine(self.url, hide_parameters=True)
        engine = create_engine(
            self.url,
            hide_parameters=True,  # an error is logged: what was being written may be a secret
            connect_args={"check_same_thread": False, "timeout": 10.0},
            **({"poolclass": StaticPool} if writing else {"poolclass": QueuePool, "pool_size": READERS}),
        )

        @event.listens_for(engine, "connect")
        def _(connection: Any, _record: Any) -> None:
            # The driver's own transaction handling begins them too late for a consistent read: ours are explicit.
            connection.isolation_level = None
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {pragma}")
            if not writing:
                connection.execute("PRAGMA query_only=ON")

        @event.listens_for(engine, "begin")
        def _(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

        return engine


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """The values in as many parts as a query's ``IN`` needs; none for no values."""
    for start in range(0, len(values), _MOST_VALUES):
        yield values[start : start + _MOST_VALUES]


def select_in(
    connection: Connection, query: Select[Any], column: ColumnElement[Any], values: Sequence[Any]
) -> Iterator[Sequence[Any]]:
    """The rows of a query in which a column has one of many values.

    SQLAlchemy writes an ``IN`` anew for each execution, which takes longer than SQLite needs for the answer.

    Args:
        connection: to the records.
        query: kept by the caller, so that it is compiled once; without values of its own.
        column: the column.
        values: any number of them, of a type that the driver takes as it is.
    """
    for some in chunks(values):
        size = 1 << (len(some) - 1).bit_length()  # so that there are few statements; the last value fills it up
        statement = _with_values(connection.dialect, query, column, size)
        padded = (*some, *[some[-1]] * (size - len(some)))
        yield from map(tuple, connection.exec_driver_sql(statement, padded))


def execute_rows(
    connection: Connection,
    statement: Insert | Update,
    names: Sequence[str],
    rows: Sequence[Sequence[Any]],
    end: str = "",
) -> int:
    """Execute one statement with many rows of values, and return how many rows of the table it changed.

    SQLAlchemy's own way looks at each value of each row, which takes four times as long as SQLite does.

    Args:
        connection: of the transaction.
        statement: kept by the caller, so that it is compiled once.
        names: of the statement's parameters.
        rows: values in the order of ``names``, of types that the driver takes as they are.
        end: SQL behind the statement.
    """
    if not rows:
        return 0
    text, order = _compiled(connection.dialect, statement, tuple(names))
    return connection.exec_driver_sql(text + end, [tuple(row) for row in map(order, rows)]).rowcount


def add_rows(
    connection: Connection,
    table: Table,
    names: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    raised: Sequence[str] = (),
    replaced: Sequence[str] = (),
) -> None:
    """Insert rows; where one of the same primary key is there, change that one, inside the caller's transaction.

    Args:
        connection: of the transaction.
        table: with a primary key.
        names: of the columns.
        rows: values in the order of ``names``.
        raised: columns whose value is added to the one that is there.
        replaced: columns whose value takes the place of the one that is there.
    """
    keys = ", ".join(column.name for column in table.primary_key.columns)
    changes = [f"{name} = {table.name}.{name} + excluded.{name}" for name in raised]
    changes += [f"{name} = excluded.{name}" for name in replaced]
    end = f" ON CONFLICT ({keys}) DO UPDATE SET {', '.join(changes)}"
    execute_rows(connection, _insert(table), names, rows, end)


@lru_cache(maxsize=64)
def _insert(table: Table) -> Insert:
    return table.insert()


@lru_cache(maxsize=256)
def _with_values(dialect: Dialect, query: Select[Any], column: ColumnElement[Any], size: int) -> str:
    """A query as the driver takes it, for so many values of a column."""
    return str(query.where(column.in_([bindparam(f"v{n}") for n in range(size)])).compile(dialect=dialect))


@lru_cache(maxsize=256)
def _compiled(
    dialect: Dialect, statement: Insert | Update, names: tuple[str, ...]
) -> tuple[str, Callable[[Sequence[Any]], Any]]:
    """A statement as the driver takes it, and what puts a row into the order that it wants."""
    compiled = statement.compile(dialect=dialect, column_keys=list(names))
    assert isinstance(compiled, SQLCompiler) and compiled.positiontup is not None, "SQLite's driver counts its values"
    return str(compiled), itemgetter(*(names.index(name) for name in compiled.positiontup))


@contextmanager
def _no_lock() -> Iterator[None]:
    yield
