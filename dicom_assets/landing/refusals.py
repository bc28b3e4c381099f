"""What was erased and is not to come in again: keyed digests of identities and of objects.

Belongs here: the key, the digests in the lake, and the question whether something is among them. Does not belong here:
erasing (`batch.erasure`), what becomes of an object that is refused (`reading.judge`).

A bare hash of a PatientID or of a path is no secret: whoever has a list of candidates finds which of them it is. So
digests are keyed (HMAC-SHA-256 of RFC 2104, cut to 128 bits). The key comes from DICOM_ASSETS_ERASURE_KEY, which keeps
it apart from the digests, or else lies in the lake, made with the first erasure.

Objects are those of a listing: an object that was erased and whose file still lies at its source is never claimed
again. Identities (a patient, a study, an instance) are compared while an object is read, as `[erase] re_arrival` says.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dicom_assets.fhir.conversions import text
from dicom_assets.storage.files import LakeError, LakeFiles

FOLDER = "_erasures"
UNDER_WAY = f"{FOLDER}/under_way.json"
"""What an erasure that was begun and not finished is about; see `batch.erasure.record`."""
KEY_VARIABLE = "DICOM_ASSETS_ERASURE_KEY"
CODE = "ERASED"
ERASED = "erased:"
"""What stands before the name of an object that was erased, in place of its uri."""
_KEY, _DIGESTS = f"{FOLDER}/key", f"{FOLDER}/digests"
_BYTES = 16
_SCHEMA = pa.schema([pa.field("digest", pa.string()), pa.field("is_object", pa.bool_())])


class Identity(StrEnum):
    """What a digest is of.

    ANY_ISSUER: a PatientID that was erased without an issuer, whoever issued it. REFERENCE: what resources of FHIR call
    a patient within their server.
    """

    PATIENT = "patient"
    ANY_ISSUER = "patient of any issuer"
    REFERENCE = "reference"
    STUDY = "study"
    INSTANCE = "instance"
    OBJECT = "object"


def name_of(reference: str | None) -> str | None:
    """What names a patient within its server, in a reference or in the resource itself."""
    return re.sub("^(Patient/|urn:uuid:|urn:oid:)", "", reference) if reference else None


def digest(key: bytes, kind: Identity, *parts: str | None) -> str:
    """The digest of an identity, hexadecimal."""
    named = "\0".join([str(kind), *(part or "" for part in parts)])
    return hmac.new(key, named.encode("utf-8", "surrogateescape"), hashlib.sha256).digest()[:_BYTES].hex()


@dataclass(frozen=True)
class Refusals:
    """What is not let in again. admits: whether identities are let in; objects that were erased never are."""

    key: bytes = b""
    identities: frozenset[str] = frozenset()
    objects: frozenset[str] = frozenset()
    admits: bool = False
    _known: dict[tuple[str | None, ...], bool] = field(default_factory=dict, repr=False, compare=False)

    def __bool__(self) -> bool:
        """Whether anything was erased."""
        return bool(self.identities or self.objects)

    def for_reading(self) -> Refusals:
        """What a reading process is handed: it meets identities alone."""
        return Refusals(self.key, frozenset() if self.admits else self.identities)

    def claims(self, object_ids: Iterable[str]) -> npt.NDArray[np.bool_]:
        """For each listed object, whether it may be claimed."""
        return np.array([digest(self.key, Identity.OBJECT, one) not in self.objects for one in object_ids], dtype=bool)

    def refuses(self, header: Mapping[str, object]) -> bool:
        """Whether an object with these attributes was erased, by its patient, its study or itself."""
        if self.admits or not self.identities:
            return False
        named = {name: _text(header.get(name)) for name in _NAMED}
        if self.refuses_patient(named["PatientID"], named["IssuerOfPatientID"]):
            return True
        study, instance = named["StudyInstanceUID"], named["SOPInstanceUID"]
        return not (self._is_new(Identity.STUDY, study) and self._is_new(Identity.INSTANCE, instance))

    def refuses_patient(self, patient: str | None, issuer: str | None) -> bool:
        """Whether a patient was erased."""
        if self.admits or not self.identities:
            return False
        asked = (patient, issuer)
        if asked not in self._known:
            one, by = text(patient), text(issuer)  # as `lake.subjects.clean` has them
            self._known[asked] = one is not None and not (
                self._is_new(Identity.PATIENT, one, by) and self._is_new(Identity.ANY_ISSUER, one)
            )
        return self._known[asked]

    def refuses_reference(self, source: str, server: str | None, reference: str | None) -> bool:
        """Whether a resource of FHIR is of a patient who was erased, by its reference."""
        name = name_of(reference)
        return name is not None and not self.admits and not self._is_new(Identity.REFERENCE, source, server, name)

    def _is_new(self, kind: Identity, *parts: str | None) -> bool:
        return not any(parts) or digest(self.key, kind, *parts) not in self.identities


NOTHING_REFUSED = Refusals()
"""Of a lake from which nothing was erased."""

_NAMED = ("PatientID", "IssuerOfPatientID", "StudyInstanceUID", "SOPInstanceUID")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def refusals(files: LakeFiles, *, admits: bool = False) -> Refusals:
    """What was erased from a lake. Raises LakeError when its digests are there and their key is not."""
    names = files.names(_DIGESTS)
    if not names:
        return Refusals(admits=admits)
    found: dict[bool, set[str]] = {True: set(), False: set()}
    for name in names:
        for row in files.get_parquet(name).to_pylist():
            found[row["is_object"]].add(row["digest"])
    return Refusals(_key_of(files), frozenset(found[False]), frozenset(found[True]), admits)


def remember(files: LakeFiles, erasure_id: str, identities: Iterable[str], objects: Iterable[str]) -> None:
    """Keeps the digests of one erasure, durably. Raises LakeError."""
    rows = [(one, False) for one in sorted(set(identities))] + [(one, True) for one in sorted(set(objects))]
    columns = [pa.array([row[at] for row in rows], kind) for at, kind in enumerate(_SCHEMA.types)]
    files.put_parquet(f"{_DIGESTS}/{erasure_id}.parquet", pa.table(columns, schema=_SCHEMA))


def forget(files: LakeFiles, erasure_id: str) -> bool:
    """Lets what one erasure has erased come in again; whether there was such an erasure. Raises LakeError."""
    path = f"{_DIGESTS}/{erasure_id}.parquet"
    known = files.exists(path)
    files.remove(path)
    return known


def make_key(files: LakeFiles) -> bytes:
    """The key of digests, made when there is none. Raises LakeError."""
    if not os.environ.get(KEY_VARIABLE):
        files.put(_KEY, secrets.token_hex(32).encode(), create=True)
    return _key_of(files)


def _key_of(files: LakeFiles) -> bytes:
    named = os.environ.get(KEY_VARIABLE)
    if named:
        return hashlib.sha256(named.encode("utf-8", "surrogateescape")).digest()
    try:
        return bytes.fromhex(files.get(_KEY).decode())
    except (FileNotFoundError, ValueError):
        raise LakeError(
            "Something was erased from this lake, and the key by which it is recognised is missing: set "
            f"{KEY_VARIABLE} to what it was then. Without it, what was erased would come in again."
        ) from None
