"""The reference run: a generated set whose results are known in advance, and whether a lake has them.

    python -m dicom_assets.reference write FOLDER
    python -m dicom_assets.reference check LAKE

Belongs here: writing the set into a folder, and comparing a lake that holds nothing else. Does not belong here: the set
itself (`batch.selftest.reference_set`), and anything that another module needs.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dicom_assets.batch.selftest.reference_set import EXPECTED, REFERENCE, files

_AGE_SECONDS = 3_600


def write(folder: Path) -> int:
    """Writes the set into a folder; how many files there are now. Raises OSError."""
    for name, data in files(REFERENCE):
        _put(folder / name, data)
    return sum(1 for path in folder.rglob("*") if path.is_file())


def _put(path: Path, data: bytes) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        moment = time.time() - _AGE_SECONDS
        os.utime(path, (moment, moment))


def found(lake_uri: str) -> dict[str, int]:
    """What a lake holds of everything in EXPECTED. Raises LakeError."""
    from dicom_assets.lake.query import connect, existing

    queries = {name: f"SELECT count(*) FROM {name}" for name in EXPECTED if " " not in name}
    queries["linked reports"] = "SELECT count(*) FROM diagnostic_report WHERE link_state = 'linked'"
    queries["ingestion_errors that are errors"] = "SELECT count(*) FROM ingestion_errors WHERE severity = 'error'"
    with connect(existing(lake_uri)) as connection:
        return {name: connection.execute(sql).fetchall()[0][0] for name, sql in queries.items()}


def main(arguments: Sequence[str]) -> int:
    """Writes the set, or compares a lake with what is expected; 0 when it is right."""
    if len(arguments) != 2 or arguments[0] not in ("write", "check"):
        print(__doc__, file=sys.stderr)
        return 2
    if arguments[0] == "write":
        print(f"{write(Path(arguments[1]))} files in {arguments[1]}")
        return 0
    actual = found(str(Path(arguments[1]).absolute()))
    print(f"{'':36}{'expected':>10}{'found':>8}")
    for name, expected in EXPECTED.items():
        print(f"{name:36}{expected:>10}{actual[name]:>8}{'' if actual[name] == expected else '   differs'}")
    return 0 if actual == EXPECTED else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
