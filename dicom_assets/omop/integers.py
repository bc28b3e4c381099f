"""Integers for OMOP: which one a series has, and which one stands for a person, visit or procedure nobody mapped.

Belongs here: natural keys and the giving out of ids, as pure functions over `omop_identifier`. Does not belong here:
the commit.

`image_occurrence_id` is a 32-bit integer. A hash of 31 bits collides with even odds at 55,000 series, so ids are given
out: the next free integer, written down for ever under a natural key that does not change. The table is committed
before the rows that use it and is never compacted into anything else, so a rerun, a rebuild or a backfill finds the
same ids. Surrogates go downwards from -1: the sign marks them wherever they turn up, and they can never meet an id of
the user's own OMOP database.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache

import pyarrow as pa

from dicom_assets.schema.registry import OMOP_IDENTIFIER

LARGEST = 2**31 - 1


class Domain(StrEnum):
    """What an id stands for; the table of the OMOP CDM."""

    IMAGE = "image_occurrence"
    PERSON = "person"
    VISIT = "visit_occurrence"
    PROCEDURE = "procedure_occurrence"


class IdentifiersExhausted(Exception):
    """A domain has given out all 2,147,483,647 integers."""


Wanted = tuple[str, str]
"""Domain and natural key."""


@lru_cache(16_384)  # each is asked for when ids are given out, and again for each table
def natural_key(*parts: str | None) -> str:
    """BLAKE2b-128 of what an id stands for, hexadecimal: no patient data leaves the tables it came from."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update((part or "").encode("utf-8", "surrogateescape"))
        digest.update(b"\0")
    return digest.hexdigest()


def series_key(source: str, study_uid: str, series_uid: str) -> str:
    """Natural key of a series."""
    return natural_key("series", source, study_uid, series_uid)


def person_key(source: str, patient_id: str | None, issuer: str | None, study_key: str, has_conflict: bool) -> str:
    """Natural key of a person.

    An identifier with an issuer is the same person in every source; one without is known within its source alone. No
    identifier, or several patients in one study, is a person for that study: empty ids are never one person.
    """
    patient, issued_by = (patient_id or "").strip(), (issuer or "").strip()
    if not patient or has_conflict:
        return natural_key("study", study_key)
    if issued_by:
        return natural_key("issuer", issued_by, patient)
    return natural_key("source", source, patient)


def order_key(person: str, accession: str | None, study_key: str) -> str:
    """Natural key of a procedure or a visit: person and accession number, otherwise the study."""
    number = (accession or "").strip()
    return natural_key("accession", person, number) if number else natural_key("study", study_key)


def allocate(wanted: Iterable[Wanted], known: Mapping[Wanted, int], last: Mapping[str, int], batch_id: str) -> pa.Table:
    """Rows of `omop_identifier` for what has no id yet, in the order of asking.

    known: ids given out for keys asked for. last: by domain, the id given out last (the largest for images, the
    smallest for surrogates). Raises IdentifiersExhausted.
    """
    free = dict(last)
    given: dict[Wanted, int] = {}
    for domain, key in wanted:
        if (domain, key) in known or (domain, key) in given:
            continue
        step = 1 if domain == Domain.IMAGE else -1
        number = free.get(domain, 0) + step
        if abs(number) > LARGEST:
            raise IdentifiersExhausted(f"{domain} has no free integer left")
        free[domain] = given[domain, key] = number
    rows = [
        {"domain": str(domain), "natural_key": key, "id": number, "batch_id": batch_id}
        for (domain, key), number in given.items()
    ]
    return pa.Table.from_pylist(rows, schema=OMOP_IDENTIFIER.schema)
