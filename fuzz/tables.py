"""Fuzzes tables: every line ends in a record, an error or a refusal, and what recognises a file sees what reads it.

    python -m fuzz.tables [--seconds N] [--seed S]

Guided by coverage where atheris is installed, blind otherwise. What fails is kept in build/fuzz, and ends the process
with a status that is not 0.
"""

from __future__ import annotations

import random
import time

from fuzz.running import instrumented, run

with instrumented(__name__, without=["dicom_assets.clinical.alphabets"]):
    import dicom_assets.clinical.tabular
    import dicom_assets.clinical.workbook  # noqa: F401 - a reader is imported when a file needs it
    from dicom_assets.batch.checks.record_checks import UNSURE
    from dicom_assets.batch.checks.recount import Uncounted, count_records
    from dicom_assets.batch.checks.reopening import bounded_file
    from dicom_assets.clinical.chunks import ClinicalUnreadable
    from dicom_assets.clinical.framing import looks_like_json
    from dicom_assets.clinical.records import read_records
    from dicom_assets.landing.recognition import look_closer
    from dicom_assets.landing.sniff import kind_of
    from dicom_assets.schema.codes import Kind
    from dicom_assets.settings import ClinicalSettings, DatasetSettings, FhirSettings
    from dicom_assets.storage.byte_file import OutOfBounds
    from dicom_assets.storage.byte_ranges import BytesSource
from dicom_assets_tests.support.workbooks import workbook

_SLOW_SECONDS = 5.0
_CLINICAL, _FHIR = ClinicalSettings(), FhirSettings()
_LABS = DatasetSettings(
    name="labs",
    files=("*",),
    patient_id_column="PatientID",
    date_column="Taken",
    date_order="day-first",
    key_columns=("n",),
)
_PIECES = (
    *(b"PatientID", b"Taken", b"n", b"MRN", b"sep=;", b"P1", b"5,4", b"03.04.2024", b"2024-03-05 14:30", b'="007"'),
    *(b",", b";", b"\t", b"|", b"\n", b"\r\n", b"\r", b'"', b'""', b"'", b"---", b"-+-", b"(2 rows affected)", b"\x1a"),
    *(b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xe9", b"\xc3\xa9", "Диагноз".encode("cp1251"), "診断".encode("cp932")),
    *(b" ", b"#", b"=", b"a title, of a report"),
)
_TABLES = (
    "PatientID,Taken,n\nP1,03.04.2024,1\nP2,2024-03-05,2\n",
    'sep=;\r\nPatientID;Taken;n\r\nP1;25.03.2024 14:30;1\r\n"P2";;"2;3"\r\n',
    "Laboratory export\nPatientID|Taken|n\n---------|-----|-\nP1|5 Mar 2024|1\n(1 rows affected)\n",
    "PatientID\nP1\nP2\n",
    "Пациент;PatientID;n\nИванов;P1;1\n",
)
_ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-le", "cp1251", "koi8_r")
_SEEDS = (
    *(text.encode(encoding, "replace") for text in _TABLES for encoding in _ENCODINGS),
    workbook([["PatientID", "Taken", "n"], ["P1", "03.04.2024", 1]], [["x"]]),
)


def judge(data: bytes) -> None:
    """Raises AssertionError, or whatever reading should not have raised."""
    started = time.process_time()
    found = look_closer(kind_of(data[:4_096], len(data)), BytesSource(data), ("a",), _CLINICAL)
    for dataset in (None, _LABS):
        try:
            parts = list(read_records(BytesSource(data), _CLINICAL, _FHIR, dataset))
        except ClinicalUnreadable as error:
            assert error.code == "CLINICAL_UNREADABLE"
            continue
        numbers = [
            *(number for part in parts for number in part.records["record"].to_pylist()),
            *(error.record for part in parts for error in part.errors),
        ]
        assert sorted(numbers) == list(range(1, len(numbers) + 1)), "a record is numbered twice or not at all"
        is_sound = any(len(part.records) for part in parts)
        if dataset is None and (is_sound or (numbers and not looks_like_json(data))):  # JSON may be no FHIR
            assert found.kind in (Kind.CLINICAL, Kind.DICOM, Kind.ARCHIVE), "read, and ignored"
            _same_count(
                data,
                len(numbers),
                any(said in error.detail for part in parts for error in part.errors for said in UNSURE),
            )
    assert time.process_time() - started < _SLOW_SECONDS, "slow"


def _same_count(data: bytes, number: int, is_unsure: bool) -> None:
    try:
        counted = count_records(bounded_file(BytesSource(data), 1 << 24), _CLINICAL.patient_id_columns)
    except (Uncounted, OutOfBounds):
        return
    assert is_unsure or counted == number, "counted otherwise"


def made(rng: random.Random) -> bytes:
    """A table with some faults, or a heap of pieces."""
    if rng.random() < 0.2:
        return b"".join(rng.choice(_PIECES) for _ in range(rng.randrange(1, 30)))
    return mutated(rng.choice(_SEEDS), rng)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` with one to four faults: pieces put in, bytes changed, lost, repeated or cut off."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(found) + 1)
        match rng.randrange(5):
            case 0 | 1:
                found[at : at + rng.choice((0, 0, 1, 5))] = rng.choice(_PIECES)
            case 2:
                del found[at : at + rng.choice((1, 2, 8))]
            case 3:
                found[at:at] = found[at : at + rng.choice((1, 10, 40))]
            case _:
                found[at : at + 1] = rng.randbytes(1)
    return bytes(found)


if __name__ == "__main__":
    run(__doc__ or "", judge, made, mutated, seeds=_SEEDS)
