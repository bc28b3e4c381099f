"""Whose an instance is: the patient that it names, or that its study names where it does not say.

Belongs here: one patient for what each object of a study writes of it. The rule is that of `lake.subjects`: what is
missing does not contradict. Does not belong here: what is said of a patient (`told`).

An identifier with an issuer is the same person in every source, one without is known within its source alone
(`omop.integers.person_key`). Objects that name nobody are of the one whom their study names; where it names several,
they are nobody's, and where it names none, the study stands for whoever it is of.
"""

from __future__ import annotations

from collections import defaultdict

import pyarrow as pa

from dicom_assets.lake.subjects import clean
from dicom_assets.schema import keys

CLEANED = f"{clean('PatientID')} AS id, {clean('IssuerOfPatientID')} AS issuer"
"""SQL for what an instance says of its patient, as columns."""
_WRITTEN = ("source", "study_key", "PatientID", "IssuerOfPatientID", "id", "issuer")

WHOSE = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("study_key", "PatientID", "IssuerOfPatientID")),
        *(pa.field(name, pa.string()) for name in ("patient_key", "id", "issuer")),
    ]
)
"""By study and what is written: the key, and the cleaned identifier and issuer, of the patient."""


def patient_key(source: str, study: str, patient: str | None, issuer: str | None) -> str:
    """Hash of a patient: of issuer and identifier, of source and identifier, or of the study; 16 hexadecimal digits."""
    if patient is None:
        return keys.study_key("nobody", study)
    return keys.study_key(f"issuer {issuer}" if issuer is not None else f"source {source}", f"patient {patient}")


def whose(same: pa.Table) -> pa.Table:
    """WHOSE of all studies of some instances, with CLEANED; what is nobody's is left out."""
    by_study = defaultdict(list)
    for row in same.select(_WRITTEN).group_by(_WRITTEN).aggregate([]).to_pylist():
        by_study[row["study_key"]].append(row)
    found = []
    for study, rows in by_study.items():
        ids = {row["id"] for row in rows} - {None}
        for row in rows:
            own = row["id"] if row["id"] is not None or len(ids) != 1 else next(iter(ids))
            if own is None and ids:
                continue
            issuers = {one["issuer"] for one in rows if one["id"] == own or (one["id"] is None and len(ids) == 1)}
            issuers -= {None}
            issuer = row["issuer"]
            if issuer is None and len(issuers) == 1:
                issuer = next(iter(issuers))
            key = patient_key(row["source"], study, own, issuer if own is not None else None)
            written = {name: row[name] for name in ("PatientID", "IssuerOfPatientID")}
            found.append({"study_key": study, **written, "patient_key": key, "id": own, "issuer": issuer})
    return pa.Table.from_pylist(found, schema=WHOSE)
