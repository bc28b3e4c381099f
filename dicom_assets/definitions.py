"""What Dagster loads: the graph for the settings of file and environment. How it is put together: `defs.graph`."""

from __future__ import annotations

from dicom_assets import faults
from dicom_assets.defs.graph import build_defs

faults.hush()

defs = build_defs()
"""The graph."""
