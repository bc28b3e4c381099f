"""Lakes of any size for the benchmark of scale, made without reading a single DICOM file.

An honest shortcut: rows come from a SELECT instead of headers, and each file is written and committed once, where
thousands of batches and their merges would have left it: tables by batch in files of merged neighbours, tables by
study as trees whose leaves and inner nodes hold as many pieces as chance has it, the newest batches one by one. What
lies on the disk afterwards (tables, columns, file sizes, statistics, claims) is what a lake of that size has; headers
are shorter (about 0.9 KB instead of 10 KB), which only `flat_metadata` notices, resources of FHIR are about as long as
real ones. One patient in three has a clinical record, one study in twenty a report.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import pairwise

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bench.scale_clinical import clinical_rows, put_reports
from bench.scale_names import FIRST, PER_BATCH, PER_SERIES, PER_STUDY, SOURCE, STUDY_ROOT, batch_name, study_uid
from dicom_assets.batch.standards import publish_coverage
from dicom_assets.curation.digest_index import enter_anew
from dicom_assets.curation.patients import patient_key
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.maintenance import FULL_NODE, OVERLAPPING, tidy
from dicom_assets.lake.positions import order_of, positions, sort_rows
from dicom_assets.lake.rewrite import file_rows, leaf_rows, put_file, put_files, swap
from dicom_assets.landing.claim_index import ids_of_digests, unpack_ids
from dicom_assets.landing.claims import FOLDER as CLAIMS
from dicom_assets.landing.claims import MANIFEST, BatchKind, ClaimLog
from dicom_assets.landing.store import LISTING, object_digests
from dicom_assets.omop.integers import Domain, natural_key, order_key, person_key, series_key
from dicom_assets.schema.keys import study_key, uid_numbers
from dicom_assets.schema.registry import TABLES

UNIT = 250_000
"""Instances made at a time; also the rows of a file of the tables that are replaced by batch."""

_HEADER = (
    f'{{"00080018":{{"vr":"UI","Value":["{STUDY_ROOT}.\' || study || \'.\' || (i // 25) || \'.\' || i || \'"]}},'
    + "".join(f'"0018{n:04X}":{{"vr":"LO","Value":["CT"]}},' for n in range(0x20, 0x34))
    + '"00189073":{"vr":"FD","Value":[\' || (i % 25) * 0.5 || \']},"00200013":{"vr":"IS","Value":[\' || i || \']},'
    + '"00400275":{"vr":"SQ","Value":[{"00400009":{"vr":"SH","Value":["STEP\' || study || \'"]}}]}}'
)
"""Inside quotes of SQL, the header of an instance: one element to promote, one in a sequence, and others."""

_VALUES = {
    "source": f"'{SOURCE}'",
    "batch_id": "batch_id",
    "object_id": "object_id",
    "operation": "'upsert'",
    "version_at": "claimed_at",
    "sequence": "0",
    "uri": "'/landing/' || study || '/' || (i // 25) || '/' || i || '.dcm'",
    "size": "520000 + hash(i) % 9000",
    "study_key": "study_key",
    "content_digest": "md5('c' || i)",
    "stable_digest": "md5('s' || i)",
    "ingested_at": "claimed_at",
    "first_seen_at": "claimed_at",
    "updated_at": "claimed_at",
    "issues": "[]",
    "StudyInstanceUID": f"'{STUDY_ROOT}.' || study",
    "SeriesInstanceUID": f"'{STUDY_ROOT}.' || study || '.' || (i // 25)",
    "SOPInstanceUID": f"'{STUDY_ROOT}.' || study || '.' || (i // 25) || '.' || i",
    "PatientID": "'P' || lpad((study // 3)::VARCHAR, 8, '0')",
    "PatientName": "'FAMILY' || (study // 3 % 5000) || '^GIVEN' || (study // 3 % 700)",
    "PatientSex": "['M', 'F', 'O'][1 + (study // 3) % 3]",
    "PatientBirthDate": "DATE '1930-01-01' + ((study // 3) % 30000)::INTEGER",
    "PatientAge": "lpad((20 + study % 70)::VARCHAR, 3, '0') || 'Y'",
    "AccessionNumber": "'A' || study",
    "StudyID": "study::VARCHAR",
    "StudyDate": "DATE '2010-01-01' + (hash(study) % 5500)::INTEGER",
    "SeriesDate": "DATE '2010-01-01' + (hash(study) % 5500)::INTEGER",
    "StudyDescription": "['CT CHEST', 'MR BRAIN', 'CT ABDOMEN', 'XR HAND', 'US LIVER'][1 + study % 5]",
    "SeriesDescription": "['AXIAL', 'CORONAL', 'T1', 'T2', 'SCOUT'][1 + (i // 25) % 5]",
    "Modality": "['CT', 'MR', 'CT', 'DX', 'US'][1 + study % 5]",
    "BodyPartExamined": "['CHEST', 'BRAIN', 'ABDOMEN', 'HAND', 'LIVER'][1 + study % 5]",
    "Manufacturer": "['ACME', 'Beta Imaging', 'Gamma'][1 + study % 3]",
    "ManufacturerModelName": "'Model ' || study % 17",
    "SeriesNumber": "1 + (i // 25) % 4",
    "InstanceNumber": "1 + i % 25",
    "Rows": "512",
    "Columns": "512",
    "BitsAllocated": "16",
    "BitsStored": "12",
    "HighBit": "11",
    "SamplesPerPixel": "1",
    "PhotometricInterpretation": "'MONOCHROME2'",
    "PixelSpacing": "[0.7, 0.7]",
    "ImagePositionPatient": "[-180.0, -180.0, (i % 25) * 2.5]",
    "ImageOrientationPatient": "[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]",
    "SliceLocation": "(i % 25) * 2.5",
    "SliceThickness": "2.5",
    "KVP": "120.0",
    "SOPClassUID": "'1.2.840.10008.5.1.4.1.1.2'",
    "TransferSyntaxUID": "'1.2.840.10008.1.2.1'",
    "header": f"'{_HEADER}'",
    "instance_count": "25",
    "series_count": "4",
    "patient_count": "1",
    "ModalitiesInStudy": "['CT']",
    "etag": "'e' || i",
    "modified_at": "claimed_at",
    "kind": "'dicom'",
    "claimed_at": "claimed_at",
    "outcome": "'ingested'",
    "judged_at": "claimed_at",
    "is_deleted": "false",
    "subject_state": "'identified'",
    "created_at": "claimed_at",
    "mapping_version": "'generated'",
    "image_occurrence_id": "1 + i // 25",
    "person_id": "-1 - study // 3",
    "procedure_occurrence_id": "-1 - study",
    "visit_occurrence_id": "-1 - study",
    "anatomic_site_concept_id": "4000000",
    "local_path": "'/landing/' || study || '/' || (i // 25)",
    "image_occurrence_date": "DATE '2010-01-01' + (hash(study) % 5500)::INTEGER",
    "image_study_UID": f"'{STUDY_ROOT}.' || study",
    "image_series_UID": f"'{STUDY_ROOT}.' || study || '.' || (i // 25)",
    "modality_concept_id": "2128009190",
    "person_from": "'surrogate'",
    "visit_from": "'surrogate'",
    "procedure_from": "'surrogate'",
    "date_from": "'SeriesDate'",
    "laterality_concept_id": "0",
    "modality_mapped": "true",
    "anatomic_site_mapped": "true",
}

_INSTANCE_OF = (
    f"""'{{"uid":"{STUDY_ROOT}.' || study || '.' || (study * 4 + s) || '.' || (study * 100 + s * 25 + n) || """
    """'","sopClass":{"system":"urn:ietf:rfc:3986","code":"urn:oid:1.2.840.10008.5.1.4.1.1.2"},"number":' || n || '}'"""
)
_SERIES_OF = (
    f"""'{{"uid":"{STUDY_ROOT}.' || study || '.' || (study * 4 + s) || '","modality":{{"system":"""
    """"http://dicom.nema.org/resources/ontology/DCM","code":"CT"},"numberOfInstances":25,"instance":[' || """
    f"array_to_string(list_transform(range(25), lambda n: {_INSTANCE_OF}), ',') || ']}}'"
)
_RESOURCE = (
    """'{"resourceType":"ImagingStudy","id":"' || sha256(study::VARCHAR) || '","identifier":[{"system":"""
    '"urn:dicom:uid",'
    f""""value":"urn:oid:{STUDY_ROOT}.' || study || '"}}],"status":"available","numberOfSeries":4,"series":[' || """
    f"array_to_string(list_transform(range(4), lambda s: {_SERIES_OF}), ',') || ']}}'"
)
_VALUES_OF = {
    "imaging_study": {
        "id": "sha256(study::VARCHAR)",
        "status": "'available'",
        "started": "'2016-01-01'",
        "started_date": "DATE '2010-01-01' + (hash(study) % 5500)::INTEGER",
        "modality": "['CT']",
        "description": "'CT CHEST'",
        "instance_count": "100",
        "modified_at": "claimed_at",
        "source_file": "'/landing/' || study || '/' || (i // 25) || '/' || i || '.dcm'",
    },
    "image_occurrence_origin": {"modality": "'CT'", "anatomic_site": "'CHEST'"},
    "series": {},
    "series_geometry": {
        "geometry_kind": "'slices'",
        "is_regular_volume": "true",
        "irregularities": "[]",
        "shortfalls": "[]",
        "image_count": "25",
        "slice_count": "25",
        "is_multiframe": "false",
        "orientation_count": "1",
        "orientation": "[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]",
        "plane": "'axial'",
        "plane_angle": "0.0",
        "position_count": "25",
        "volume_count": "1",
        "split_by": "[]",
        "slices_per_volume": "25",
        "spacing": "2.5",
        "spacing_deviation": "0.0",
        "largest_distance": "2.5",
        "missing_slices": "0",
        "duplicated_images": "0",
        "first_position": "0.0",
        "last_position": "60.0",
        "misalignment": "0.0",
        "shear_angle": "0.0",
        "instance_numbers_missing": "0",
    },
    "study": {"instance_count": "100"},
}
"""Values of columns whose names mean something else in these tables."""


def _connection(studies: pa.Table | None) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    if studies is not None:
        connection.register("studies", studies)
    return connection


def study_keys(start: int, end: int) -> pa.Table:
    """Numbers of generated studies with their keys."""
    numbers = range(start, end)
    return pa.table({"study": list(numbers), "study_key": [study_key(SOURCE, study_uid(n)) for n in numbers]})


def rows(name: str, numbers: pa.Table, studies: pa.Table, order: str = "i") -> pa.Table:
    """Rows of a table for the instances whose numbers `i` are given; see the module."""
    table = TABLES[name]
    values = {**_VALUES, "resource": _RESOURCE, **_VALUES_OF.get(name, {})}
    columns = ", ".join(f'{values.get(c.name, "NULL")} AS "{c.name}"' for c in table.columns)
    stamp = f"TIMESTAMPTZ '{FIRST.isoformat()}' + to_minutes(i // {PER_BATCH})"
    name_of = f"strftime({stamp}, '%Y%m%dT%H%M%SZ') || '-' || printf('%08x', i // {PER_BATCH})"
    named = numbers.append_column("object_id", _object_ids(listing(numbers["i"])))
    with _connection(studies) as connection:
        connection.register("numbers", named)
        found = connection.sql(
            f"SELECT {columns} FROM (SELECT *, {stamp} AS claimed_at, {name_of} AS batch_id "
            f"FROM (SELECT *, i // {PER_STUDY} AS study FROM numbers) JOIN studies USING (study)) ORDER BY {order}"
        ).to_arrow_table()
    return found.cast(table.schema)


def numbers(start: int, end: int, step: int = 1) -> pa.Table:
    """Numbers of instances: all, or the first of each series or study."""
    return pa.table({"i": np.arange(start, end, step)})


def _append(lake: Lake, name: str, *parts: pa.Table) -> None:
    """Adds files in one commit: one for each part of a table by batch, those that fit its rows of one by study."""
    by_study = name in _STEP or name == "patient_value"
    adds = [
        add
        for part in parts
        for add in (put_files(lake, name, part) if by_study else [put_file(lake, TABLES[name], part)])
    ]
    swap(lake, name, lambda *_: (np.empty(0, np.int64), adds), data_change=True)


def make(uri: str, instances: int, tail: int = 20) -> Lake:
    """Makes a lake of so many instances.

    tail: newest batches, written one by one and merged as the clean-up of batches does it.
    """
    lake = Lake(uri)
    batches = instances // PER_BATCH
    merged = max(0, batches - tail) * PER_BATCH
    for start in range(0, merged, UNIT):
        _unit(lake, start, min(start + UNIT, merged))
    for name in _STEP:
        _tree(lake, name, merged)
    for start in range(merged, instances, PER_BATCH):
        _unit(lake, start, start + PER_BATCH)
        _levels(lake, start, start + PER_BATCH)
        for name in TABLES:
            tidy(lake, name)
    put_reports(lake, instances)
    _books_and_claims(lake, batches)
    publish_coverage(lake)
    for name in TABLES:
        tidy(lake, name, at_most=1_000)
        lake.table(name).create_checkpoint()
    return lake


def _unit(lake: Lake, start: int, end: int) -> None:
    """Tables by batch, for some batches at once."""
    studies = study_keys(start // PER_STUDY, -(-end // PER_STUDY))
    for name in ("raw_files", "validated_batch", "flat_metadata"):
        _append(lake, name, rows(name, numbers(start, end), studies, "batch_id, study_key, i"))
    firsts = numbers(start, end, PER_STUDY)
    _append(lake, "batch_study", rows("batch_study", firsts, studies, "study_key"))
    enter_anew(lake, [batch_name(number) for number in range(start // PER_BATCH, -(-end // PER_BATCH))])
    _append(lake, "omop_identifier", _identifiers(start // PER_STUDY, -(-end // PER_STUDY)))
    _append(lake, "clinical", clinical_rows(start // PER_STUDY, -(-end // PER_STUDY)))
    _append(lake, "uid_index", _uids(start, end))
    _append(
        lake, "patient_value", sort_rows("patient_value", _patient_values(start // PER_STUDY, -(-end // PER_STUDY)))
    )


def _uids(start: int, end: int) -> pa.Table:
    """The index of UIDs of some instances."""
    found: list[tuple[str, str, int]] = []
    for study in range(start // PER_STUDY, -(-end // PER_STUDY)):
        batch, uid = batch_name(study * PER_STUDY // PER_BATCH), study_uid(study)
        series = [f"{uid}.{study * 4 + one}" for one in range(4)]
        instances = [f"{series[one // PER_SERIES]}.{study * PER_STUDY + one}" for one in range(PER_STUDY)]
        key = study_key(SOURCE, uid)
        found += [(batch, key, number) for number in sorted(uid_numbers((uid, *series, *instances)).tolist())]
    schema = TABLES["uid_index"].schema
    return pa.table([pa.array(c, f.type) for c, f in zip(zip(*found, strict=True), schema, strict=True)], schema)


def _patient_values(start: int, end: int) -> pa.Table:
    """What some studies say of their patients: name, sex and birth date."""
    made = []
    for study in range(start, end):
        patient, stamp = study // 3, FIRST + timedelta(minutes=study * PER_STUDY // PER_BATCH)
        said = {
            "PatientName": f"FAMILY{patient % 5000}^GIVEN{patient % 700}",
            "PatientSex": "MFO"[patient % 3],
            "PatientBirthDate": f"{date(1930, 1, 1) + timedelta(days=patient % 30000)}",
        }
        uid = study_uid(study)
        shared = {
            "study_key": study_key(SOURCE, uid), "source": SOURCE, "StudyInstanceUID": uid, "objects": PER_STUDY,
            "patient_key": patient_key(SOURCE, "", f"P{patient:08d}", None), "PatientID": f"P{patient:08d}",
            "first_seen_at": stamp, "updated_at": stamp, "version_at": stamp, "sequence": 0,
            "object_id": natural_key("told", str(study))[:20],
        }  # fmt: skip
        made += [{**shared, "attribute": name, "said": value, "value": value} for name, value in said.items()]
    return pa.Table.from_pylist(made, schema=TABLES["patient_value"].schema)


def _identifiers(start: int, end: int) -> pa.Table:
    """The ids that the series of some studies have, under the keys by which they are found again."""
    found: list[tuple[str, str, int, str]] = []
    for study in range(start, end):
        batch, uid = batch_name(study * PER_STUDY // PER_BATCH), study_uid(study)
        person = person_key(SOURCE, f"P{study // 3:08d}", None, "", False)
        for series in range(study * 4, study * 4 + 4):
            found.append((Domain.IMAGE, series_key(SOURCE, uid, f"{uid}.{series}"), series + 1, batch))
        if study % 3 == 0:
            found.append((Domain.PERSON, person, -1 - study // 3, batch))
        order = order_key(person, f"A{study}", "")
        found += [(domain, order, -1 - study, batch) for domain in (Domain.VISIT, Domain.PROCEDURE)]
    schema = TABLES["omop_identifier"].schema
    return pa.table(
        [pa.array(values, f.type) for values, f in zip(zip(*found, strict=True), schema, strict=True)], schema
    )


_STEP = {
    "instance": 1, "series": PER_SERIES, "study": PER_STUDY, "series_geometry": PER_SERIES,
    "imaging_study": PER_STUDY, "image_occurrence": PER_SERIES, "image_occurrence_origin": PER_SERIES,
}  # fmt: skip
"""Tables by study, with how many instances a row of them has."""


def _levels(lake: Lake, start: int, end: int) -> None:
    """Tables by study, as a batch of new studies leaves them."""
    studies = study_keys(start // PER_STUDY, -(-end // PER_STUDY))
    for name, step in _STEP.items():
        _append(lake, name, sort_rows(name, rows(name, numbers(start, end, step), studies)))


def _tree(lake: Lake, name: str, end: int) -> None:
    """A table by study as merges leave it: sorted leaves, to which pieces came later, and inner nodes of pieces."""
    if not end:
        return
    studies = study_keys(0, -(-end // PER_STUDY))
    uids = [study_uid(n) for n in range(len(studies))]
    places = positions(name, studies["study_key"].to_pylist() if order_of(name) == "study_key" else uids)
    studies = studies.append_column("place", pa.array(places)).sort_by("place")
    place = np.array([int(one, 16) for one in studies["place"].to_pylist()], dtype=np.uint64)
    bound, of_study = file_rows(name), PER_STUDY // _STEP[name]
    depth, chance = 0, random.Random(name)
    while len(studies) * of_study > leaf_rows(name) * 8**depth:
        depth += 1
    taken = np.zeros(len(studies), dtype=bool)
    for level in range(1, depth + 1):
        edges = _edges(place, level)
        for low, high in pairwise(edges):
            sorted_files = (high - low) * of_study // bound
            most = 7 if level < depth else sorted_files // 2 + OVERLAPPING
            for _ in range(chance.randint(0, most)):
                wanted = min(FULL_NODE * bound // 8 // of_study, (high - low) // 8)
                piece = np.array(sorted(chance.sample(range(low, high), wanted)), dtype=np.int64)
                piece = piece[~taken[piece]]
                taken[piece] = True
                if len(piece):
                    _append(lake, name, _rows_of(name, studies.take(piece)))
    group: list[pa.Table] = []
    for low, high in pairwise(_edges(place, depth)):
        leaf = np.arange(low, high)[~taken[low:high]]
        group.append(studies.take(leaf))
        if sum(map(len, group)) * of_study >= UNIT or high == len(studies):
            _append(lake, name, *_cut(_rows_of(name, pa.concat_tables(group)), [len(one) * of_study for one in group]))
            group = []


def _edges(place: npt.NDArray[np.uint64], level: int) -> list[int]:
    """Where the nodes of a level begin and end among places in order."""
    nodes = np.arange(1, 8**level, dtype=np.uint64) << np.uint64(64 - 3 * level)
    return [0, *np.searchsorted(place, nodes).tolist(), len(place)]


def _rows_of(name: str, studies: pa.Table) -> pa.Table:
    """The ordered rows of some studies."""
    of_each = np.arange(0, PER_STUDY, _STEP[name])
    all_of_them = (studies["study"].to_numpy()[:, None] * PER_STUDY + of_each[None, :]).ravel()
    found = rows(name, pa.table({"i": all_of_them}), studies.select(["study", "study_key"]))
    return sort_rows(name, found.sort_by(TABLES[name].replaced_by))


def _cut(found: pa.Table, lengths: list[int]) -> Iterator[pa.Table]:
    start = 0
    for length in lengths:
        yield found.slice(start, length)
        start += length


def _books_and_claims(lake: Lake, batches: int) -> None:
    """The books of every batch, and its claim in the log."""
    made = pa.Table.from_pylist(
        [
            {
                "batch_id": batch_name(number), "source": SOURCE, "status": "closed", "seen": PER_BATCH,
                "ingested": PER_BATCH, "quarantined": 0, "ignored": 0, "deleted": 0, "clinical_records": 0,
                "clinical_rows": 0, "started_at": FIRST, "closed_at": FIRST, "run_id": "generated",
            }
            for number in range(batches)
        ],
        schema=TABLES["batches"].schema,
    )  # fmt: skip
    _append(lake, "batches", made)
    for number in range(batches):
        part = listing(range(number * PER_BATCH, (number + 1) * PER_BATCH))
        size = len(part)
        columns = {
            "batch_id": pa.array([batch_name(number)] * size),
            "object_id": _object_ids(part),
            "source": pa.array([SOURCE] * size),
            "claimed_at": pa.array([FIRST] * size, MANIFEST.field("claimed_at").type),
            "attempt": pa.array([1] * size, pa.int64()),
            "batch_kind": pa.array([str(BatchKind.ARRIVAL)] * size, pa.string()),
            "read_in": pa.nulls(size, pa.string()),
            **{name: part[name] for name in LISTING.names},
        }
        claim = pa.table([columns[name] for name in MANIFEST.names], schema=MANIFEST)
        lake.files.put_parquet(f"{CLAIMS}/{number + 1:012d}.parquet", claim)
    ClaimLog(lake.files).summarise()


def _object_ids(listed: pa.RecordBatch) -> pa.Array:
    """The object_ids of what a listing says, as claims have them."""
    return unpack_ids(ids_of_digests(object_digests(SOURCE, listed["uri"], listed["etag"])))


def listing(numbers: pa.Array | pa.ChunkedArray | range) -> pa.RecordBatch:
    """What a listing of the landing zone says of some generated objects."""
    number = pa.array(np.asarray(numbers))
    names = [pc.cast(pc.divide(number, step), pa.string()) for step in (PER_STUDY, PER_SERIES, 1)]
    file = pc.binary_join_element_wise(names[2], ".dcm", "")
    return pa.record_batch(
        [
            pc.binary_join_element_wise("", "landing", names[0], names[1], file, "/"),
            pc.binary_join_element_wise("e", names[2], ""),
            pa.repeat(pa.scalar(520_000, pa.int64()), len(number)),
            pa.repeat(pa.scalar(FIRST, LISTING.field("modified_at").type), len(number)),
        ],
        schema=LISTING,
    )
