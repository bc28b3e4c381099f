"""What somebody may see of a lake: whether a permission can be held against it, and what is left of it in one request.

Belongs here: trying conditions, and narrowing a scope to a source. Does not belong here: who asks (`access`), how a
scope is held (`served.Snapshot`).
"""

from __future__ import annotations

import duckdb

from dicom_assets.sections import SettingsError
from dicom_assets.serve.access import permissions
from dicom_assets.serve.problems import not_found
from dicom_assets.serve.served import Scope, ServedLake
from dicom_assets.serve.submissions import is_partition_to_be
from dicom_assets.serve_settings import ServeSettings

_EVERY = "/*"
"""Behind the name of a source: each of its data partitions."""


def try_conditions(settings: ServeSettings, served: ServedLake) -> None:
    """Raises SettingsError for a condition that the lake cannot be asked by."""
    conditions = [(who, one.condition) for who, one in permissions(settings) if one.condition is not None]
    if not conditions:
        return
    snapshot = served.snapshot()
    for who, condition in conditions:
        try:
            with snapshot.cursor() as connection:
                _require_one_expression(connection, who, condition)
                scoped = snapshot.within(Scope(None, condition))
                for table in ("study", "instance"):
                    connection.execute(f"SELECT count(*) FROM {scoped.scan(table)}").fetchall()
        except duckdb.Error as error:
            raise SettingsError(
                f"{who}: the condition does not work as one over the columns of `study` ({type(error).__name__}). Try "
                'it with `dicom-assets sql "SELECT count(*) FROM study WHERE …"`.'
            ) from None


def _require_one_expression(connection: duckdb.DuckDBPyConnection, who: str, condition: str) -> None:
    """A condition that closes a bracket which it has not opened would end where it is put in, and widen what it bounds.

    So it must be whole by itself: as the one column of a statement, with nothing behind it.
    """
    alone = connection.extract_statements(f"SELECT {condition}\n AS condition")
    within = connection.extract_statements(f"SELECT ({condition}) AS condition")
    if len(alone) != 1 or len(within) != 1 or alone[0].type != duckdb.StatementType.SELECT:
        raise SettingsError(f"{who}: the condition must be one expression of SQL.")


def narrowed(scope: Scope, source: str | None, served: ServedLake) -> Scope:
    """What is left of a scope below the path of a source; None: of all of them. Raises Refusal (404). Blocks.

    A source that does not exist and one that may not be seen are told apart by nothing.
    """
    known = {*served.snapshot().sources, *(one.name for one in served.settings.sources)}
    if source is not None and is_partition_to_be(served.settings, source):
        known.add(source)
    allowed = known if scope.sources is None else {one for one in known if _covers(scope.sources, one)}
    if source is None:
        return scope if scope.sources is None else Scope(tuple(sorted(allowed)), scope.condition)
    if source not in allowed:
        raise not_found("source")
    return Scope((source,), scope.condition)


def _covers(sources: tuple[str, ...], source: str) -> bool:
    if source in sources:
        return True
    name, has_partition, _ = source.partition("/")
    return bool(has_partition) and f"{name}{_EVERY}" in sources
