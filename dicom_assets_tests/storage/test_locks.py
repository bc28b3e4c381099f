"""Locks of a lake in a folder: one holder at a time, and nothing left of those that are taken once."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from dicom_assets.storage.locks import FOLDER, LockBusy, hold


def test_a_lock_that_is_held_cannot_be_taken(tmp_path: Path):
    with hold(tmp_path, "a", 0), pytest.raises(LockBusy), hold(tmp_path, "a", 0):
        pass
    with hold(tmp_path, "a", 0):
        pass


def test_a_lock_that_is_taken_once_leaves_nothing_behind(tmp_path: Path):
    with hold(tmp_path, "a", 0, once=True):
        assert (tmp_path / FOLDER / "a.lock").exists()
        with pytest.raises(LockBusy), hold(tmp_path, "a", 0, once=True):
            pass
        assert (tmp_path / FOLDER / "a.lock").exists()
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_whoever_waits_for_a_file_that_is_deleted_never_holds_it_beside_another(tmp_path: Path):
    inside, most = [], []

    def take() -> None:
        for _ in range(5):
            with hold(tmp_path, "a", 60, once=True):
                inside.append(True)
                most.append(len(inside))
                time.sleep(0.002)
                inside.pop()

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 30
    assert max(most) == 1
