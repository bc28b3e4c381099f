"""A lake with a canary in it: a patient of whom everything is found again, wherever it stands.

Belongs here: the patient, the lake and its landing folder. Does not belong here: erasing.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import dagster as dg

from dicom_assets.batch.erasure.record import Record, finish
from dicom_assets.batch.erasure.removal import begin, carry_out
from dicom_assets.batch.erasure.target import Target, find
from dicom_assets.lake.maintenance import maintain
from dicom_assets.schema.registry import TABLES
from dicom_assets.storage.traces import Terms
from dicom_assets_tests.support.dicoms import dicom, uid, without_identity
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder, put_mixed
from dicom_assets_tests.support.steps import Stepped

PATIENT = "CANARY-4711"
SAYS: Mapping[str, str] = {
    "PatientID": PATIENT,
    "PatientName": "CANARYBIRD^Yellow",
    "AccessionNumber": "ACC-CANARY",
}
STUDY = 9
TERMS = Terms.of([PATIENT, "CANARYBIRD", "ACC-CANARY", "SECRET-DIAGNOSIS", uid(STUDY), uid(STUDY, 1, 1)])
"""What names the canary; where its files lie has its name too."""

FOREVER = 100_000
"""Hours for which maintenance keeps old versions here."""


def canary_lake(root: Path, instance: dg.DagsterInstance) -> Graph:
    """A lake with other patients and three versions of what the canary left, a compaction and a paused batch."""
    landing = LandingFolder(root / "landing")
    put_mixed(landing)
    landing.put("CANARY-4711/1.dcm", dicom(STUDY, 1, 1, **SAYS))
    landing.put("CANARY-4711/2.dcm", dicom(STUDY, 1, 2, **SAYS))
    landing.put_zip("CANARY-4711.zip", {"a/9.dcm": dicom(STUDY, 2, 1, **SAYS), "README.txt": b"hello"})
    landing.put_zip("both.zip", {"9.dcm": dicom(STUDY, 3, 1, **SAYS), "x.dcm": dicom(4, 1, 1)})
    landing.put("clinical/of-both.csv", f"PatientID;diagnosis\nP0001;R91.8\n{PATIENT};SECRET-DIAGNOSIS\n")
    landing.put("clinical/of-one.csv", f"PatientID;weight\n{PATIENT};70\n")
    graph = Stepped(settings_for(root / "lake", landing.root), instance, judges=False)
    graph.ingest()
    landing.put("CANARY-4711/1.dcm", dicom(STUDY, 1, 1, StudyDescription="again", **SAYS), age_seconds=3_600)
    landing.put("other/1.dcm", dicom(5, 1, 1), age_seconds=3_600)
    graph.ingest()
    for name in TABLES:
        maintain(graph.lake, name, FOREVER)
    landing.put("CANARY-4711/late.dcm", dicom(STUDY, 4, 1, **SAYS))
    for number in range(12):
        landing.put(f"broken/{number}.dcm", without_identity(number))
    graph.ingest()
    return graph


def erased(graph: Graph, target: Target) -> Record:
    """Erases something from a graph's lake the way that the command does; what was erased."""
    lake = graph.lake
    record = begin(lake, target, find(lake, target, "a steward"))
    carry_out(lake, graph.settings, record)
    finish(lake.files)
    return record


def plant(lake: Path, state: Path) -> None:
    """Puts the canary where it stands when something went wrong: spilled, torn, and in what SQLite has not overwritten.

    lake: its folder. state: a folder of databases beside it.
    """
    spilled = lake / "_tmp" / "elsewhere-1-aaaa"
    spilled.mkdir(parents=True)
    (spilled / "duckdb_temp_storage-0.tmp").write_bytes(b"\0\1" + PATIENT.encode() + b"\0\2")
    torn = lake / "_torn" / "flat_metadata"
    torn.mkdir(parents=True)
    (torn / "00000000000000000003.json.1234abcd.gz").write_bytes(
        gzip.compress(json.dumps({"add": {"stats": json.dumps({"maxValues": {"PatientID": PATIENT}})}}).encode())
    )
    orphan = next((lake / "flat_metadata").glob("*.parquet"))
    shutil.copy(orphan, lake / "flat_metadata" / "part-orphan.zstd.parquet")
    (lake / "flat_metadata" / "part-cut.zstd.parquet#1").write_bytes(b"PAR1" + PATIENT.encode())
    state.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(state / "runs.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("CREATE TABLE notes (run_id TEXT, text TEXT)")
        connection.execute("INSERT INTO notes VALUES (NULL, ?)", [PATIENT * 2_000])
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("DELETE FROM notes")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    log = state / "runs.db-wal"
    with closing(sqlite3.connect(state / "runs.db")) as connection:
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("INSERT INTO notes VALUES (NULL, ?)", [PATIENT])
        connection.commit()
        connection.execute("DELETE FROM notes")
        connection.commit()
        kept = log.read_bytes()
    log.write_bytes(kept)
