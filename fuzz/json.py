"""Fuzzes FHIR JSON: frames are JSON objects or faults, in any encoding the same, and what is read is recognised.

    python -m fuzz.json [--seconds N] [--seed S]

Guided by coverage where atheris is installed, blind otherwise. What fails is kept in build/fuzz, and ends the process
with a status that is not 0.
"""

from __future__ import annotations

import json
import random
import time

from fuzz.running import instrumented, run

with instrumented(__name__):
    import dicom_assets.clinical.fhir_resources  # noqa: F401 - a reader is imported when a file needs it
    from dicom_assets.batch.checks.record_checks import UNSURE
    from dicom_assets.batch.checks.recount import Uncounted, count_records
    from dicom_assets.batch.checks.reopening import bounded_file
    from dicom_assets.clinical.chunks import ClinicalUnreadable
    from dicom_assets.clinical.framing import Frame, NotFhir, frames
    from dicom_assets.clinical.records import read_records
    from dicom_assets.landing.recognition import look_closer
    from dicom_assets.landing.sniff import kind_of
    from dicom_assets.schema.codes import Kind
    from dicom_assets.settings import ClinicalSettings, FhirSettings
    from dicom_assets.storage.byte_file import OutOfBounds
    from dicom_assets.storage.byte_ranges import BytesSource

_SLOW_SECONDS = 5.0
_CLINICAL, _FHIR = ClinicalSettings(), FhirSettings()
_PATIENT = {"resourceType": "Patient", "id": "p", "identifier": [{"system": "s", "value": "P1"}]}
_REPORT = {"code": {"text": "胸部"}, "id": "r", "resourceType": "DiagnosticReport", "status": "final"}
_BUNDLE = {"entry": [{"fullUrl": "urn:uuid:1", "resource": _PATIENT}, {"resource": _REPORT}], "resourceType": "Bundle"}
_TEXTS = (
    json.dumps(_PATIENT) + "\r\n" + json.dumps(_REPORT, sort_keys=True, ensure_ascii=False) + "\n",
    json.dumps(_BUNDLE, sort_keys=True, indent=1),
    json.dumps([_REPORT, _BUNDLE, {"resourceType": "Bundle", "entry": [{"resource": _BUNDLE}]}]),
    json.dumps(_BUNDLE) + "\n" + json.dumps(_BUNDLE),
)
_SEEDS = tuple(text.encode(one) for text in _TEXTS for one in ("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"))
_PIECES = (
    *(b"{", b"}", b"[", b"]", b'"', b"\\", b'\\"', b":", b",", b"\n", b"\r\n", b"null", b"1e400", b'"entry":[', b"{}"),
    *(b'"resourceType":"Bundle"', b'"resourceType":', b'"resource":{', b"\x1a", b"\0", b"\xef\xbb\xbf", b"\xff", b" "),
    *(
        b'"resource\\u0054ype":"Bundle"',
        b'"\\u0065ntry":[',
        b"\\ud800",
        b"1,",
        b'"id":"q"',
        b'"entry":{}',
        b"-",
        b"]}}",
    ),
)


def judge(data: bytes) -> None:
    """Raises AssertionError, or whatever reading should not have raised."""
    started = time.process_time()
    found = look_closer(kind_of(data[:4_096], len(data)), BytesSource(data), ("a",), _CLINICAL)
    framed = _framed(data)
    for frame in framed:
        assert (frame.fault is None) == bool(frame.data), "a frame is a resource or a fault"
        assert frame.fault is not None or isinstance(json.loads(frame.data), dict), "no object"
    try:
        parts = list(read_records(BytesSource(data), _CLINICAL, _FHIR))
    except ClinicalUnreadable as error:
        assert error.code == "CLINICAL_UNREADABLE"
        return
    sound = sum(len(part.records) for part in parts)
    wrong = [error.detail for part in parts for error in part.errors]
    if sound:
        assert found.kind in (Kind.CLINICAL, Kind.DICOM, Kind.ARCHIVE), "read, and ignored"
        _same_elsewhere(data, framed)
    if found.kind is Kind.CLINICAL and not any(said in detail for detail in wrong for said in UNSURE):
        _same_count(data, sound + len(wrong))
    assert time.process_time() - started < _SLOW_SECONDS, "slow"


def _framed(data: bytes) -> list[Frame]:
    try:
        return list(frames(BytesSource(data)))
    except (NotFhir, ClinicalUnreadable):
        return []


def _same_elsewhere(data: bytes, framed: list[Frame]) -> None:
    """The same text in UTF-16 has the same resources."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return
    if "\0" not in text:
        assert _framed(text.encode("utf-16")) == framed, "another encoding, other resources"


def _same_count(data: bytes, number: int) -> None:
    try:
        counted = count_records(bounded_file(BytesSource(data), 1 << 24), _CLINICAL.patient_id_columns)
    except (Uncounted, OutOfBounds):
        return
    assert counted == number, "counted otherwise"


def made(rng: random.Random) -> bytes:
    """JSON with some faults, or a heap of pieces."""
    if rng.random() < 0.1:
        return b"{" + b"".join(rng.choice(_PIECES) for _ in range(rng.randrange(1, 30)))
    return mutated(rng.choice(_SEEDS), rng)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` with one to three faults: pieces put in, bytes changed, lost, repeated or cut off."""
    found = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        at = rng.randrange(len(found) + 1)
        match rng.randrange(5):
            case 0 | 1:
                found[at : at + rng.choice((0, 0, 1, 5))] = rng.choice(_PIECES)
            case 2:
                del found[at : at + rng.choice((1, 2, 8, 400))]
            case 3:
                found[at:at] = found[at : at + rng.choice((1, 10, 40))]
            case _:
                found[at : at + 1] = rng.randbytes(1)
    return bytes(found)


if __name__ == "__main__":
    run(__doc__ or "", judge, made, mutated, seeds=_SEEDS)
