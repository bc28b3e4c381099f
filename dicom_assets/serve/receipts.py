"""What became of the objects of one request to store: the Store Instances Response Module (PS3.18 I.2).

Belongs here: reasons, items, the status that they add up to. Does not belong here: how it came (`intake`).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import orjson

from dicom_assets.serve.addresses import address


class Failure(IntEnum):
    """Failure Reason (0008,1197), PS3.18 I.2.2."""

    PROCESSING = 0x0110
    OUT_OF_RESOURCES = 0xA700
    IDENTITY = 0xA900
    CANNOT_UNDERSTAND = 0xC000


REPLACED = 0xB000
"""Warning Reason (0008,1196): another object of the same UIDs is there, and what was stored is a new version of it."""


class Receipt:
    """The answer to one request, item by item; false while there is none."""

    def __init__(self, base: str, study: str | None) -> None:
        """base: what addresses begin with; study: of the request's path."""
        self._base, self._study = base, study
        self._stored: list[dict[str, Any]] = []
        self._failed: list[dict[str, Any]] = []
        self._studies: set[str] = set()
        self._warned = self._too_large = self._unavailable = False

    def __bool__(self) -> bool:
        """Whether it says anything."""
        return bool(self._stored or self._failed)

    def takes(self, study: str) -> bool:
        """Whether an object of a study is one that was asked to be stored."""
        return self._study in (None, study)

    def stored(self, sop_class: str | None, study: str, series: str, instance: str, *, replaces: bool) -> None:
        """An object is there. replaces: as a new version, of other bytes than the one before."""
        item = _reference(sop_class, instance)
        item["00081190"] = {"vr": "UR", "Value": [address(self._base, (study, series, instance))]}
        if replaces:
            item["00081196"] = {"vr": "US", "Value": [REPLACED]}
            self._warned = True
        self._studies.add(study)
        self._stored.append(item)

    def failed(
        self, reason: Failure, sop_class: str | None = None, instance: str | None = None, *, too_large: bool = False
    ) -> None:
        """An object is not there; its UIDs as far as they are known."""
        self._failed.append({**_reference(sop_class, instance), "00081197": {"vr": "US", "Value": [int(reason)]}})
        self._too_large |= too_large
        self._unavailable |= reason is Failure.OUT_OF_RESOURCES and not too_large

    @property
    def status(self) -> int:
        """200 all, 202 some or with warnings, none: 503 when it may go later, 413 when it was too large, else 409."""
        if self._stored:
            return 202 if self._failed or self._warned else 200
        return 503 if self._unavailable else 413 if self._too_large else 409

    def body(self) -> bytes:
        """DICOM JSON. RetrieveURL is that of the study; without a value where several were stored."""
        study = self._study if self._study in self._studies else None
        if study is None and len(self._studies) == 1:
            (study,) = self._studies
        answer: dict[str, Any] = {"00081190": {"vr": "UR"}}
        if study is not None:
            answer["00081190"]["Value"] = [address(self._base, (study,))]
        if self._failed:
            answer["00081198"] = {"vr": "SQ", "Value": self._failed}
        if self._stored:
            answer["00081199"] = {"vr": "SQ", "Value": self._stored}
        return orjson.dumps(answer)


def _reference(sop_class: str | None, instance: str | None) -> dict[str, Any]:
    uids = {"00081150": sop_class, "00081155": instance}
    return {tag: {"vr": "UI", "Value": [uid]} for tag, uid in uids.items() if uid}
