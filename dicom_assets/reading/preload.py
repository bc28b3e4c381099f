"""What a reading process needs, imported once by the process that all of them are forked from.

Belongs here: nothing that acts on objects; `processes` names this module to multiprocessing's fork server.
"""

import os

# A process that forks must not have threads that hold locks: numpy's library for matrices starts one for each core.
# The one of Arrow's allocator (jemalloc) stays; it is made for forks.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pyarrow as pa

import dicom_assets.reading.judge
import dicom_assets.reading.listing  # noqa: F401
from dicom_assets.collector import keep_what_is_there

pa.array([])  # with its first array pyarrow imports pandas, which nothing here needs; no setting keeps it from that
keep_what_is_there()  # what is read has no cycles, and what was imported stays
