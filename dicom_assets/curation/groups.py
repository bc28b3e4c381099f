"""Rows in groups, as numpy arrays: labels of combined values, and what each group's rows come to.

Belongs here: sorting and reducing, for many groups at once. Does not belong here: what is grouped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def combined(*columns: npt.NDArray[Any]) -> Ints:
    """One label, from 0 on, for each combination of values, in the order of the values; NaN is equal to itself."""
    if not len(columns[0]):
        return np.zeros(0, dtype=np.int64)
    keys = [np.nan_to_num(one, nan=np.inf) if one.dtype.kind == "f" else one for one in columns]
    order = np.lexsort(keys[::-1])
    changes = np.zeros(len(order), dtype=bool)
    for one in keys:
        ordered = one[order]
        changes[1:] |= ordered[1:] != ordered[:-1]
    labels = np.empty(len(order), dtype=np.int64)
    labels[order] = np.cumsum(changes)
    return labels


def coded(values: pa.ChunkedArray | pa.Array) -> Ints:
    """A whole number for each value, in the order of the values; -1 for NULL."""
    found = pa.chunked_array([values] if isinstance(values, pa.Array) else values).combine_chunks().dictionary_encode()
    ranks = pc.rank(found.dictionary, sort_keys="ascending", tiebreaker="dense") if len(found.dictionary) else None
    at = np.asarray(pc.fill_null(found.indices, -1), dtype=np.int64)
    if ranks is None:
        return at
    return np.where(at < 0, -1, np.asarray(ranks, dtype=np.int64)[at])


def first_of_each(labels: Ints) -> Ints:
    """Where each label stands first, by label; labels are dense, from 0 on."""
    return np.unique(labels, return_index=True)[1].astype(np.int64)


class Groups:
    """Rows with labels 0 … number - 1, in any order; a group may have no rows."""

    def __init__(self, labels: Ints, number: int) -> None:
        """labels: the group of each row."""
        self.labels, self.number = labels, number
        self.counts = np.bincount(labels, minlength=number).astype(np.int64)
        self._order = np.argsort(labels, kind="stable")
        self._starts = np.cumsum(self.counts) - self.counts
        self._there = self.counts > 0

    def _reduced(self, ufunc: np.ufunc, values: npt.NDArray[Any], empty: Any) -> npt.NDArray[Any]:
        found = np.full(self.number, empty, dtype=values.dtype)
        if len(values):
            found[self._there] = ufunc.reduceat(values[self._order], self._starts[self._there])
        return found

    def rows(self, group: int) -> Ints:
        """Where the rows of one group stand."""
        at: Ints = self._order[self._starts[group] : self._starts[group] + self.counts[group]]
        return at

    def least(self, values: Floats) -> Floats:
        """The smallest value of each group, NaN aside; NaN where there is none."""
        return self._reduced(np.fmin, values, np.nan)

    def greatest(self, values: Floats) -> Floats:
        """The largest value of each group, NaN aside; NaN where there is none."""
        return self._reduced(np.fmax, values, np.nan)

    def total(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The sum of each group."""
        return self._reduced(np.add, values, 0)

    def has(self, flags: Flags) -> Flags:
        """Whether any row of each group is flagged."""
        return np.bincount(self.labels[flags], minlength=self.number) > 0

    def distinct(self, codes: Ints) -> Ints:
        """How many codes each group has, those below 0 aside."""
        known = codes >= 0
        pairs = combined(self.labels[known], codes[known])
        firsts = first_of_each(pairs)
        return np.bincount(self.labels[known][firsts], minlength=self.number).astype(np.int64)

    def median(self, values: Floats) -> Floats:
        """The lower median of each group, which is one of its values; NaN where there are no rows."""
        found = np.full(self.number, np.nan)
        ordered = values[np.lexsort((values, self.labels))]
        there = self._there
        found[there] = ordered[self._starts[there] + (self.counts[there] - 1) // 2]
        return found
