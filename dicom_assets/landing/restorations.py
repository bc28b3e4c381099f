"""Objects that lie again where another one was claimed since: a file that came back as an older version of itself.

Belongs here: finding them in a listing. Does not belong here: which claim of a place is the last one
(`lake.overwritten`), claiming (`claims`).

What an object is called follows from its place, time and size. Restored with its old time it has the name that it had
before, and was claimed under it; what is current is the other one, until this one is claimed once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.landing.claim_index import PackedIds, unpack_ids


class Restorations:
    """The places of one source that were claimed more than once, and what was claimed there last."""

    def __init__(
        self,
        last: pa.Table,
        attempts: Mapping[str, int],
        later: Callable[[datetime], Iterable[pa.ChunkedArray]],
    ) -> None:
        """Asks nothing before something is found.

        last: uri, object_id, claimed_at of the last claim that is known at each place. attempts: by object_id how often
        it was claimed, where that was more than once. later: the object_ids of each claim after a time.
        """
        self._last = {uri: (one, at) for uri, one, at in zip(*last.to_pydict().values(), strict=True)}
        self._uris = last["uri"].combine_chunks()
        self._attempts = attempts
        self._later = later

    def restored(self, uris: pa.Array, ids: PackedIds, is_new: npt.NDArray[np.bool_]) -> Mapping[str, int]:
        """Of listed objects those that were replaced and lie there again: how often each was claimed, by object_id.

        uris, ids: of the listing. is_new: which were never claimed. What a later claim holds already, which is not
        published yet, is not among them.
        """
        if not self._last:
            return {}
        at = np.flatnonzero(np.asarray(pc.is_in(uris, self._uris)) & ~is_new)
        names = dict(zip(unpack_ids(ids[at]).to_pylist(), uris.take(pa.array(at)).to_pylist(), strict=True))
        found = {one: self._last[uri][1] for one, uri in names.items() if self._last[uri][0] != one}
        if not found:
            return {}
        wanted = pa.array(list(found), pa.string())
        for claimed in self._later(min(found.values())):
            for one in claimed.filter(pc.is_in(claimed, wanted)).to_pylist():
                found.pop(one, None)
        return {one: self._attempts.get(one, 1) for one in found}
