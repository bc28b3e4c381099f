"""Memory that answers under way share: one may always begin, others as long as there is room."""

from __future__ import annotations

import pytest

from dicom_assets.serve.problems import Refusal
from dicom_assets.serve.room import HeaderRoom


def test_who_comes_when_the_room_is_taken_is_told_to_come_back_and_later_finds_room():
    room = HeaderRoom(most=100)
    room.change(0, 60)
    with pytest.raises(Refusal) as refused:
        room.change(0, 50)
    assert (refused.value.status, "Retry-After" in refused.value.headers) == (503, True)
    room.change(60, 0)
    room.change(0, 50)


def test_an_answer_of_any_size_has_room_when_it_is_alone_and_goes_on_once_it_has_begun():
    room = HeaderRoom(most=100)
    room.change(0, 1_000)
    room.change(1_000, 0)
    room.change(0, 10)
    room.change(0, 80)
    room.change(10, 90)
