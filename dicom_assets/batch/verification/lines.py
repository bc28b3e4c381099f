"""The rule over the NDJSON files of FHIR: their lines and the rows of imaging_study say the same.

Belongs here: finding the files of a batch by its id, reading them as lines, comparing. Does not belong here: how a
resource is made (`dicom_assets.fhir`), writing the files again (`batch.standards`).

A batch's lines say what its studies were when it was published, so an older line may say less than the row does now.
What must hold: a batch has one line for each of its studies, and no other; and each row stands, by id and digest of its
content, in a line of some batch that touched the study.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from dicom_assets.batch.verification.findings import SHOWN, Finding, Sound

FOLDER = "Process/Clinical/FHIR NDJSON"
_FILE = re.compile(rf"{FOLDER}/(?P<source>.+)/\d{{4}}/\d\d/\d\d/ImagingStudy/ImagingStudy-(?P<batch>[^/]+)-\d+\.ndjson")
_AT_ONCE = 8
"""Files that are read side by side: a thousand resources each, some megabytes."""

_ROWS = """
-- one row per resource: its study and its content
SELECT study_key, source, id, StudyInstanceUID AS uid, md5_number(resource) AS content FROM {}
"""

_LINES = """
-- one row per line: by which names it calls its study, and its content; a line that is no JSON calls none
SELECT
    $batch AS batch_id, $source AS source, row_number() OVER () + $first AS number,
    CASE WHEN json_valid(line) THEN line ->> 'id' END AS id,
    CASE WHEN json_valid(line) THEN line ->> '$.identifier[*].value' END AS identifiers,
    md5_number(line) AS content
FROM read
"""

_STANDING = """
-- one row per line and study that it stands for: by the id of the resource, or by the study's UID where the base of the
-- ids was another one then
SELECT number, study_key FROM lines JOIN resources USING (source, id)
UNION
SELECT number, study_key
FROM (SELECT number, source, unnest(identifiers) AS identifier FROM lines) AS named
JOIN resources ON named.source = resources.source AND identifier = 'urn:oid:' || uid
"""

_DIFFERING = """
-- batches whose lines are not one for each of their studies
SELECT DISTINCT batch_id FROM (
    SELECT batch_id, study_key, 1 AS times FROM looked_at_index SEMI JOIN resources USING (study_key)
    UNION ALL
    SELECT batch_id, study_key, -1 AS times FROM lines LEFT JOIN standing USING (number)
)
SEMI JOIN looked_at USING (batch_id)
WHERE study_key IS NULL OR study_key NOT IN (FROM moving)
GROUP BY batch_id, study_key HAVING sum(times) <> 0
"""

_UNSAID = """
-- the last batch of each study whose row stands in no line as it is
SELECT max(batch_id) FROM resources
JOIN closed_index USING (study_key)
ANTI JOIN lines USING (source, id, content)
WHERE study_key NOT IN (FROM moving) AND study_key IN (SELECT study_key FROM looked_at_index)
GROUP BY study_key
"""


@dataclass(frozen=True)
class Lines(Finding):
    """What the rule found. rewritten: batches whose files are to be written again. strays: files of unknown batches."""

    rewritten: Sequence[str] = ()
    strays: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    source: str
    batch: str


def look(sound: Sound, closed: Sequence[str], chosen: Sequence[str] | None, known: Collection[str]) -> Finding:
    """Compares the files of closed batches with imaging_study.

    closed: read before anything else. chosen: only these of them, and what they touch. known: every batch that is
    claimed or has books. Raises LakeError, duckdb.Error.
    """
    description = "Lines of NDJSON files = studies of their batches, and say what imaging_study says"
    if not sound.opens("imaging_study", "batch_study"):
        return Finding("lines", description, told="not looked at: a table cannot be opened", is_note=True)
    with sound.lake.cursor() as connection:
        # Rows before the index, in which a batch is entered before it writes anything.
        connection.execute(f"CREATE TEMP TABLE resources AS {_ROWS.format(sound.source('imaging_study'))}")
        files = list(_files(sound.lake.files.names(FOLDER)))
        _index(connection, sound, closed, closed if chosen is None else chosen)
        wanted = connection.execute("SELECT DISTINCT batch_id FROM closed_index").fetchall()
        asked = {*(batch for (batch,) in wanted), *(closed if chosen is None else chosen)}
        _read(connection, sound, [file for file in files if file.batch in asked])
        connection.execute(f"CREATE TEMP TABLE standing AS {_STANDING}")
        found = connection.execute(f"{_DIFFERING} UNION {_UNSAID} ORDER BY 1").fetchall()
    batches = [str(batch) for (batch,) in found]
    strays = [] if chosen is not None else [file for file in files if file.batch not in known]
    shown = [*batches, *sorted({file.batch for file in strays})][:SHOWN]
    told = f"{len(strays)} files are of batches that nobody claimed" if strays else ""
    return Lines("lines", description, len(batches) + len(strays), shown=shown, told=told,
                 rewritten=batches, strays=[file.path for file in strays])  # fmt: skip


def _files(names: Sequence[str]) -> Iterator[_File]:
    for name in names:
        found = _FILE.fullmatch(name)
        if found is not None:
            yield _File(name, found["source"], found["batch"])


def _index(connection: duckdb.DuckDBPyConnection, sound: Sound, closed: Sequence[str], chosen: Sequence[str]) -> None:
    """Which studies closed batches touch, and which others are between two states."""
    for name, batches in (("closed", closed), ("looked_at", chosen)):
        connection.register(name, pa.table({"batch_id": pa.array(batches, pa.string())}))
    index = sound.source("batch_study")
    connection.execute(
        f"""
        CREATE TEMP TABLE moving AS SELECT DISTINCT study_key FROM {index} ANTI JOIN closed USING (batch_id);
        CREATE TEMP TABLE looked_at_index AS SELECT DISTINCT batch_id, study_key FROM {index}
            SEMI JOIN closed USING (batch_id) SEMI JOIN looked_at USING (batch_id);
        CREATE TEMP TABLE closed_index AS SELECT DISTINCT batch_id, study_key FROM {index}
            SEMI JOIN closed USING (batch_id) SEMI JOIN looked_at_index USING (study_key);
        """
    )


def _read(connection: duckdb.DuckDBPyConnection, sound: Sound, files: Sequence[_File]) -> None:
    connection.execute(
        "CREATE TEMP TABLE lines "
        "(batch_id VARCHAR, source VARCHAR, number BIGINT, id VARCHAR, identifiers VARCHAR[], content UHUGEINT)"
    )
    first = 0
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for start in range(0, len(files), _AT_ONCE):
            some = files[start : start + _AT_ONCE]
            for file, data in zip(some, pool.map(lambda file: _content(sound, file.path), some), strict=True):
                text = data.decode("utf-8", "replace").removesuffix("\n")
                lines = pa.array(text.split("\n") if data else [], pa.string())
                connection.register("read", pa.table({"line": lines}))
                connection.execute(
                    f"INSERT INTO lines {_LINES}", {"batch": file.batch, "source": file.source, "first": first}
                )
                first += len(lines)


def _content(sound: Sound, path: str) -> bytes:
    try:
        return sound.lake.files.get(path)
    except FileNotFoundError:  # its batch is run again, and has less to say
        return b""
