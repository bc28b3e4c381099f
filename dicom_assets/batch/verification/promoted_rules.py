"""The rules over promoted columns: flat_metadata says what its headers say, and each level what the one above says.

Belongs here: comparing in SQL, over the JSON of headers, without the code that fills columns. Does not belong here:
that code (`dicom.from_header`, `batch.promotion`).

Values of texts at the top of the data set are compared one by one. Of other VRs and paths it is compared whether there
is a value: a value that does not fit is NULL, which the column's count of misfits tells.
"""

from __future__ import annotations

from collections.abc import Iterator

from dicom_assets.batch.verification.findings import SHOWN, Finding, Sound
from dicom_assets.lake.column_list import READY, Listed
from dicom_assets.lake.hierarchy import GRAIN
from dicom_assets.lake.quoting import named, quoted

_TEXTS = frozenset({"AE", "AS", "CS", "LO", "SH", "UC", "UI", "UR"})

_HEADERS = """
-- batches with rows whose column says something else than their header
SELECT DISTINCT batch_id FROM (
    SELECT batch_id, {column} AS said, header -> {path} AS written FROM {flat_metadata} WHERE header IS NOT NULL
)
WHERE {differs}
ORDER BY 1
"""

_LEVEL = """
-- studies with rows whose column says something else than the object that they name
SELECT DISTINCT study_key FROM {instance} AS below
JOIN (SELECT batch_id, object_id, {column} AS above FROM {flat_metadata}) USING (batch_id, object_id)
WHERE {column} IS DISTINCT FROM above
ORDER BY 1
"""

_SUMMED = """
-- studies with a series or study whose column says what none of its instances says, or nothing though one does
SELECT DISTINCT study_key FROM {table} AS level
WHERE ({column} IS NOT NULL) <> EXISTS (
    SELECT 1 FROM {instance} AS one
    WHERE {same} AND one.{column} IS NOT NULL AND (level.{column} IS NULL OR one.{column} = level.{column})
)
ORDER BY 1
"""


def look(sound: Sound) -> Iterator[Finding]:
    """Compares every promoted column that is whole. Raises LakeError, duckdb.Error."""
    for listed in sound.lake.columns:
        if listed.stage == READY and sound.opens(*listed.way):
            yield _compared(sound, listed)


def _compared(sound: Sound, listed: Listed) -> Finding:
    column = listed.column
    tables = {name: sound.source(name) for name in listed.way} | {"column": named(column.name)}
    batches: list[str] = []
    studies: set[str] = set()
    with sound.lake.cursor() as connection:
        if len(column.steps) == 1 and column.steps[0].creator is None:
            path = quoted(f'$."{column.steps[0].key}".Value')
            sql = _HEADERS.format(**tables, path=path, differs=_differs(listed))
            batches = [str(one) for (one,) in connection.execute(sql).fetchall()]
        studies.update(str(key) for (key,) in connection.execute(_LEVEL.format(**tables)).fetchall())
        for table in listed.way[2:]:
            same = " AND ".join(f"one.{key} = level.{key}" for key in GRAIN[table])
            sql = _SUMMED.format(**{**tables, "table": tables[table]}, same=same)
            studies.update(str(key) for (key,) in connection.execute(sql).fetchall())
    return Finding(
        f"column {column.name}",
        "A promoted column = what headers say, on every level",
        len(batches) + len(studies),
        batches,
        sorted(studies),
        [*batches, *sorted(studies)][:SHOWN],
    )


def _differs(listed: Listed) -> str:
    column = listed.column
    if column.vr in _TEXTS:
        written = "[nullif(trim(value), '') FOR value IN from_json(written, '[\"VARCHAR\"]')]"
        if column.multiple:
            has_one = f"len([value FOR value IN {written} IF value IS NOT NULL]) > 0"
            return f"said IS DISTINCT FROM CASE WHEN {has_one} THEN {written} END"
        return f"said IS NOT NULL AND said IS DISTINCT FROM {written}[1]"
    return "said IS NOT NULL AND (written IS NULL OR json_array_length(written) = 0)"
