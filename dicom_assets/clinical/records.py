"""Records of any clinical file: FHIR resources, or rows of a table.

Belongs here: which reader a file gets. Does not belong here: the readers (`resources`, `tabular`).
"""

from __future__ import annotations

from collections.abc import Iterator

from dicom_assets.clinical.chunks import ClinicalChunk
from dicom_assets.clinical.framing import looks_like_json
from dicom_assets.settings import ClinicalSettings, DatasetSettings, FhirSettings
from dicom_assets.storage.byte_ranges import ByteSource

HEAD_BYTES = 65_536


def read_records(
    source: ByteSource, clinical: ClinicalSettings, fhir: FhirSettings, dataset: DatasetSettings | None = None
) -> Iterator[ClinicalChunk]:
    """The records of a clinical file in its order, a bounded number at a time.

    dataset: the configured one that the file belongs to, if any; FHIR belongs to none. Raises ClinicalUnreadable when
    the file as a whole is refused, and whatever `source` raises.
    """
    head = source.read(0, HEAD_BYTES)
    if head.startswith(b"PK"):
        from dicom_assets.clinical.tabular import read_workbook

        return read_workbook(source, clinical, dataset)
    if looks_like_json(head):
        from dicom_assets.clinical.fhir_resources import read_resources

        return read_resources(source, fhir)
    from dicom_assets.clinical.tabular import read_table

    return read_table(source, clinical, dataset)
