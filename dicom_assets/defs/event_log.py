"""Dagster's event log in SQLite with engines that are kept: the storage plug-in that `dagster.yaml` names.

Dagster's own class makes a database engine for each statement: it compiles the statement anew, opens the file and,
closing it, writes the log back. That is most of what an event costs, and a run of a batch has 200 of them. Belongs
here: this class alone. It imports nothing else of the project, since every process of Dagster's loads it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any, Self

import sqlalchemy
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage

MOST_ENGINES = 8
"""Files whose engines are kept: the index, and those of the runs that were asked about last."""
INDEX = "index"
"""Dagster's name for the file of events that are asked for across runs."""
WAIT_SECONDS = 30.0
"""How long a statement waits for another process that writes."""


class PooledSqliteEventLogStorage(SqliteEventLogStorage):
    """What Dagster's class keeps, in the same files, through engines that live as long as this object.

    base_dir: as of Dagster's class; a relative one lies below the current folder.
    """

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        """Opens the log below `base_dir`."""
        self._engines: dict[str, sqlalchemy.Engine] = {}
        self._engines_lock = Lock()
        super().__init__(base_dir, inst_data)

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> Self:
        """As `dagster.yaml` says."""
        return cls(inst_data=inst_data, **config_value)

    def _engine(self, shard: str) -> sqlalchemy.Engine:
        with self._engines_lock:
            engine = self._engines.pop(shard, None) or _open(self.conn_string_for_shard(shard))
            self._engines[shard] = engine
            if len(self._engines) > MOST_ENGINES:
                oldest = next(one for one in self._engines if one != INDEX)
                self._engines.pop(oldest).dispose()
        return engine

    @contextmanager
    def _connect(self, shard: str) -> Iterator[sqlalchemy.Connection]:
        """A connection to one file, which is made when it is missing; what is done with it is committed together."""
        with self._db_lock:
            engine = self._engine(shard)
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.begin() as connection:
                yield connection

    def has_table(self, table_name: str) -> bool:
        """Whether the index has a table."""
        # On a connection of its own, as Dagster asks in the middle of a transaction.
        with self._engine(INDEX).connect() as connection:
            return sqlalchemy.inspect(connection).has_table(table_name)

    def wipe(self) -> None:
        """Removes everything."""
        self._forget()
        super().wipe()

    def dispose(self) -> None:
        """Closes what is open."""
        self._forget()
        super().dispose()

    def _forget(self) -> None:
        with self._engines_lock:
            while self._engines:
                self._engines.popitem()[1].dispose()


def _open(url: str) -> sqlalchemy.Engine:
    engine = sqlalchemy.create_engine(url, connect_args={"timeout": WAIT_SECONDS})
    sqlalchemy.event.listen(engine, "connect", _commit_without_waiting)
    return engine


def _commit_without_waiting(connection: Any, _: object) -> None:
    """Lets SQLite commit events without waiting for the disk at each.

    A write-ahead log stays whole even when the machine loses power; only the last events may be missing. The books are
    in the lake, not there.
    """
    connection.execute("PRAGMA synchronous = NORMAL")
