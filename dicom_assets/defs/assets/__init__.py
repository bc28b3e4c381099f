"""The flow, file by file: raw_files, validated_batch, flat_metadata, clinical, hierarchy, ingestion_errors, cleanup."""

from dicom_assets.defs.assets.cleanup import cleanup
from dicom_assets.defs.assets.clinical import clinical
from dicom_assets.defs.assets.diagnostic_report import diagnostic_report
from dicom_assets.defs.assets.flat_metadata import flat_metadata
from dicom_assets.defs.assets.hierarchy import hierarchy
from dicom_assets.defs.assets.image_occurrence import occurrences
from dicom_assets.defs.assets.imaging_study import imaging_study
from dicom_assets.defs.assets.ingestion_errors import ingestion_errors
from dicom_assets.defs.assets.maintenance import table_maintenance
from dicom_assets.defs.assets.mapping_coverage import mapping_coverage
from dicom_assets.defs.assets.raw_files import raw_files
from dicom_assets.defs.assets.validated_batch import validated_batch

BATCH_ASSETS = [
    raw_files,
    validated_batch,
    flat_metadata,
    clinical,
    hierarchy,
    imaging_study,
    diagnostic_report,
    occurrences,
    mapping_coverage,
    ingestion_errors,
    cleanup,
]
"""The assets of one batch, in the order of the flow."""

ASSETS = [*BATCH_ASSETS, table_maintenance]
"""Every asset."""
