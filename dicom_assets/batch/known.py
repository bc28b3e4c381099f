"""Which entries of a window that was read again are accounted for already, so that only what changed is claimed anew.

Belongs here: the question to the tables. Does not belong here: the entries themselves (`changes`).
"""

from __future__ import annotations

from collections.abc import Callable

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import connect

Known = Callable[[str], frozenset[str]]
"""Takes the uri of a window file, returns object_ids of its entries that earlier batches have accounted for."""

_ACCOUNTED = """
-- object_ids of one window file's entries that closed batches before this one have accounted for
SELECT DISTINCT object_id
FROM raw_files
JOIN validated_batch AS ledger USING (batch_id, object_id)
SEMI JOIN (SELECT batch_id FROM batches WHERE status = 'closed') AS closed USING (batch_id)
WHERE raw_files.uri = $1 AND raw_files.member IS NOT NULL AND batch_id < $2 AND ledger.outcome <> 'quarantined'
"""


def known_before(lake: Lake, batch_id: str) -> Known:
    """Entries that batches before this one have accounted for; asked only for a window that was read again.

    Batches whose books are closed count, because what they hold stays in the lake; later batches do not, so that a
    batch that is run again finds the entries that it found before. This is the one question about a window whose cost
    grows with the lake: it looks through the uris of raw_files.
    """

    def known(uri: str) -> frozenset[str]:
        with connect(lake, ["raw_files", "validated_batch", "batches"]) as connection:
            return frozenset(row[0] for row in connection.execute(_ACCOUNTED, [uri, batch_id]).fetchall())

    return known
