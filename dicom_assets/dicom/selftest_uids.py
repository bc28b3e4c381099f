"""UIDs of self-tests of a deployment: told from those of patients by their root.

Belongs here: the root, and whether a UID has it. Does not belong here: the objects that bear them (`batch.selftest`).
"""

from __future__ import annotations

TEST_ROOT = "1.2.826.0.1.3680043.8.498.72"
"""Below the root that pydicom gives to whoever has none; nobody's study has it."""


def is_of_selftest(uid: str | None) -> bool:
    """Whether a UID is one that a self-test made: such an object is nobody's, and goes again within minutes."""
    return uid is not None and uid.startswith(f"{TEST_ROOT}.")
