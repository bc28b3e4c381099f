"""What Dagster loads: the graph for the settings of file and environment. How it is put together: `defs.graph`."""

from __future__ import annotations

import os

import dagster as dg

from dicom_assets import faults
from dicom_assets.defs.graph import build_defs
from dicom_assets.defs.state_folder import require_own_state
from dicom_assets.settings import load

faults.hush()

settings = load()
require_own_state(settings)
os.umask(settings.storage.umask)  # a process of Dagster's that loads this writes the lake, and logs of runs

defs = dg.Definitions.merge(build_defs(settings), dg.Definitions(executor=dg.in_process_executor))
"""The graph. The executor is for runs of single assets: jobs have it themselves."""
