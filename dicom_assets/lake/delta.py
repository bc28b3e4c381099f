"""One lake: its tables, and the one rule of writing that serves every one of them.

Belongs here: the object that everything above is handed. A publication replaces the rows whose `replaced_by` column has
one of some values, in one commit. Does not belong here: which rows, and how files are swapped for it (`rewrite`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa

from dicom_assets.lake import rewrite
from dicom_assets.lake.tables import Tables


class Lake(Tables):
    """One lake, open."""

    def replace(
        self,
        name: str,
        values: Sequence[str],
        rows: pa.Table | Callable[[], Iterable[pa.RecordBatch]] | rewrite.NewFiles,
    ) -> None:
        """Replaces, in one commit, the rows of a table whose `replaced_by` column has one of `values` by `rows`.

        rows: a table; or, for tables that are replaced by batch, a function that begins a stream of batches anew for
        each try, or files that are written already. Rows of a table that is replaced by study may be of others than
        `values`: these are added to what it has. Only files that hold such rows are rewritten, see `rewrite`.
        Conflicting commits are worked out anew after growing, jittered pauses. Raises LakeError; the message holds no
        value.
        """
        if not isinstance(rows, pa.Table):
            rewrite.replace_batches(self, name, values, rows)
        elif self.tables[name].replaced_by == "batch_id":
            rewrite.replace_batches(self, name, values, rows.to_batches)
        else:
            rewrite.replace_keys(self, name, values, rows)
