"""What SQL says over files of a lake, kept while a batch is held: a file never changes, so its answer holds.

Belongs here: keeping answers for steps and rules of one batch. Does not belong here: any SQL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

import duckdb
import pyarrow as pa

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow
from dicom_assets.lake.staging import Staging

ANSWERS_BYTES = 32_000_000
"""Bytes of answers that are kept for a batch."""

Ask = Callable[[duckdb.DuckDBPyConnection, str], pa.Table]


@dataclass
class Answers:
    """Answers by their SQL, kept for one batch: the last ones, as many as there is room for, and always the last."""

    tables: dict[str, pa.Table] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def enter(self, sql: str, answer: pa.Table) -> None:
        """Keeps an answer."""
        with self.lock:
            self.tables[sql] = answer
            held = sum(one.nbytes for one in self.tables.values())
            while held > ANSWERS_BYTES and len(self.tables) > 1:
                held -= self.tables.pop(next(iter(self.tables))).nbytes


def answer(lake: Lake, staging: Staging | None, sql: str, ask: Ask = arrow) -> pa.Table:
    """What SQL says over files of the lake alone, as `scan` names them; asked again, the answer that was given.

    A file never changes, so neither does what SQL says that names nothing else. ask: `arrow`, or `few` for a long query
    that gives few rows. Without a batch that is held nothing is kept. Raises LakeError.
    """
    answers = None if staging is None else staging.recall(Answers)
    if answers is None:
        answers = Answers()
        if staging is not None:
            staging.remember(answers)
    found = answers.tables.get(sql)
    if found is None:
        with lake.cursor() as connection:
            found = ask(connection, sql)
        answers.enter(sql, found)
    return found
