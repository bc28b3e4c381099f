"""The books of a lake as one caller may see them: batches, begun or not, and errors with what ended them.

Belongs here: opening them, and leaving out what is of other sources. Does not belong here: what is asked of them
(`batch_list`, `error_list`, `matters`, `growth`).

Books count what arrived, whoever it is of: no condition over studies can be held against them. Who has one sees none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import duckdb
import pyarrow as pa

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, connect
from dicom_assets.lake.quoting import one_of
from dicom_assets.lake.resolutions import RESOLUTIONS_NEED
from dicom_assets.landing.claims import Claim, ClaimLog
from dicom_assets.landing.looks import Looks
from dicom_assets.landing.returns import Waiting, waiting
from dicom_assets.monitoring.numbers import CLAIMED, is_among
from dicom_assets.schema.registry import TIMESTAMP
from dicom_assets.serve.problems import Refusal
from dicom_assets.serve.questions import Questions
from dicom_assets.serve.served import Scope, ServedLake

T = TypeVar("T")

NOT_FOR_CONDITIONS = (
    "What you may see is bounded by a condition over studies. Batches and errors count what arrived, whoever it is of, "
    "so the condition cannot be held against them, and they are not shown."
)

_CLAIMS = pa.schema(
    [
        ("batch_id", pa.string()),
        ("source", pa.string()),
        ("objects", pa.int64()),
        ("claimed_at", TIMESTAMP),
    ]
)

_BATCH = f"""
-- one row per batch, those that nobody has begun among them
CREATE TEMP VIEW seen_batch AS
SELECT
    coalesce(b.batch_id, c.batch_id) AS batch_id,
    coalesce(b.source, c.source) AS source,
    coalesce(b.status, '{CLAIMED}') AS status,
    coalesce(b.seen, c.objects) AS seen,
    coalesce(b.ingested, 0) AS ingested,
    coalesce(b.quarantined, 0) AS quarantined,
    coalesce(b.ignored, 0) AS ignored,
    coalesce(b.deleted, 0) AS deleted,
    b.clinical_records, b.clinical_rows, b.kind, c.claimed_at, b.started_at, b.closed_at, b.run_id, b.reason,
    b.decision, b.decided_by, b.decided_at, b.decision_reason, b.step_seconds
FROM batches AS b FULL JOIN claims AS c USING (batch_id)
WHERE {{allowed}}
"""

_ERROR = """
-- one row per error, warning or remark, with the source of its batch and what resolved it
CREATE TEMP VIEW seen_error AS
SELECT error.*, batch.source, resolution, resolved_at, resolved_by
FROM ingestion_errors AS error
LEFT JOIN resolved USING (batch_id, object_id, stage, code, record)
LEFT JOIN batches AS batch ON batch.batch_id = error.batch_id
WHERE {allowed}
"""

_RESOLVED = """
-- one row per error that something has ended, by its key
SELECT batch_id, object_id, stage, code, record, resolution, resolved_at, resolved_by
FROM ingestion_error_states WHERE resolution IS NOT NULL
"""


class Kept:
    """What is kept of the books of one served lake, so that a page reads what is new alone.

    The claims, which never change; and answers that whole tables are looked through for, such as which errors something
    has ended: asked again when one of the tables that tell it has another version.
    """

    def __init__(self) -> None:
        """Nothing is read yet."""
        self._claims, self._errors = threading.Lock(), threading.Lock()
        self._log: ClaimLog | None = None
        self._answers: dict[tuple[str, ...], tuple[tuple[int, ...], Any]] = {}

    def claims(self, lake: Lake) -> list[Claim]:
        """Every claim. Raises LakeError."""
        with self._claims:
            return self._of(lake).claims()

    def returned(self, lake: Lake) -> pa.Table:
        """What batches have returned (schema `returns.RETURNS`). Raises LakeError."""
        with self._claims:
            return self._of(lake).returned()

    def _of(self, lake: Lake) -> ClaimLog:
        if self._log is None:
            self._log = ClaimLog(lake.files)
        return self._log

    def resolved(self, lake: Lake, questions: Questions) -> pa.Table:
        """The errors that something has ended, by their keys, with what and when. Raises LakeError, Stopped."""

        def ask() -> pa.Table:
            with questions.using(connect(lake, RESOLUTIONS_NEED)) as connection:
                return arrow(connection, _RESOLVED)

        with self._errors, lake.look_once(RESOLUTIONS_NEED):
            return self.answer(("resolved",), [lake.extents(name).version for name in RESOLUTIONS_NEED], ask)

    def answer(self, asked: tuple[str, ...], versions: Sequence[int], ask: Callable[[], T]) -> T:
        """The answer to a question over some versions of tables, the same for everybody. asked: names the question."""
        known = self._answers.get(asked)
        if known is None or known[0] != tuple(versions):
            known = self._answers[asked] = tuple(versions), ask()
        return cast(T, known[1])


@dataclass(frozen=True)
class SeenBooks:
    """The books that somebody may see. sources: as permissions name them; None: all. claims: see `_CLAIMS`.

    kept: what is read once for all of them.
    """

    lake: Lake
    kept: Kept
    questions: Questions
    claims: pa.Table
    sources: tuple[str, ...] | None = None

    def shows(self, source: str) -> bool:
        """Whether a source, as the books name it, may be seen."""
        return self.sources is None or is_among(source, self.sources)

    @property
    def is_whole(self) -> bool:
        """Whether everything may be seen, what is of no source too."""
        return self.sources is None

    def of(self, source: str) -> SeenBooks:
        """Those of one source alone, as far as it may be seen."""
        return replace(self, sources=(source,) if self.shows(source) else ())

    def unread(self) -> list[Waiting]:
        """What left its batch and waits to be read again, source by source. Raises LakeError."""
        return [one for one in waiting(self.kept.returned(self.lake)) if self.shows(one.source)]

    @property
    def looks(self) -> Looks:
        """What is remembered of the sources."""
        return Looks(self.lake.files)

    @contextmanager
    def batches(self, *more: str, batch_id: str | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection with the view `seen_batch`, and with further tables; of one batch alone, if it is named.

        Of the further tables everything is there: join them to `seen_batch`. Raises LakeError, Stopped.
        """
        with self._open({"batches", *more}, batch_id) as connection:
            self._show_batches(connection)
            yield connection

    @contextmanager
    def errors(self, batch_id: str | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection with the views `seen_batch` and `seen_error`, whose columns tell what ended an error.

        batch_id: only errors of this batch. Raises LakeError, Stopped.
        """
        resolved = self.kept.resolved(self.lake, self.questions)
        with self._open({"batches", "ingestion_errors"}, batch_id) as connection:
            self._show_batches(connection)
            connection.register("resolved", resolved)
            connection.execute(_ERROR.format(allowed=self._allowed("coalesce(batch.source, '')")))
            yield connection

    @contextmanager
    def _open(self, tables: set[str], batch_id: str | None) -> Iterator[duckdb.DuckDBPyConnection]:
        within = None if batch_id is None else {name: {"batch_id": [batch_id]} for name in tables}
        with (
            self.lake.look_once(tables),
            self.questions.using(connect(self.lake, sorted(tables), within=within)) as connection,
        ):
            yield connection

    def _show_batches(self, connection: duckdb.DuckDBPyConnection) -> None:
        connection.register("claims", self.claims)
        connection.execute(_BATCH.format(allowed=self._allowed("coalesce(b.source, c.source)")))

    def _allowed(self, column: str) -> str:
        """SQL that holds for the sources that may be seen; the same as `monitoring.numbers.is_among`."""
        if self.sources is None:
            return "true"
        if not self.sources:
            return "false"
        allowed = one_of(self.sources)
        return f"({column} IN ({allowed}) OR split_part({column}, '/', 1) || '/*' IN ({allowed}))"


def seen_by(served: ServedLake, scope: Scope) -> SeenBooks:
    """The books as somebody may see them, as they are now. Raises Refusal (403). Blocks.

    scope: that of the caller, as the settings have it.
    """
    if scope.condition is not None:
        raise Refusal(403, NOT_FOR_CONDITIONS)
    snapshot, kept = served.snapshot(), served.part(Kept)
    found = kept.claims(snapshot.lake)
    table = pa.table(
        {
            "batch_id": [one.batch_id for one in found],
            "source": [one.source for one in found],
            "objects": [one.objects for one in found],
            "claimed_at": [one.claimed_at for one in found],
        },
        schema=_CLAIMS,
    )
    return SeenBooks(snapshot.lake, kept, snapshot.questions, table, scope.sources)
