"""Symbolic links in a landing folder: which are followed, and what an object is that leads elsewhere.

Belongs here: the decision about one link, file systems that the system makes up, and whether an open file lies where
its path says. Does not belong here: listing (`local`).

A link to a file within the root is followed and counts under its own path: it is the same file twice. A link to a
folder within the root is not followed, since what it leads to is listed where it lies. What leads out of the root is
followed only where the source says so. Each link that is not followed is an object of its own, with the link's own
time and length as version, so that the books count it: it is claimed once and ignored as LINK_NOT_FOLLOWED. A link to a
folder that holds the link, or to a file that the system makes up as it is read (`/proc`), is never followed.
"""

from __future__ import annotations

import errno
import os
import sys
from functools import lru_cache
from typing import NamedTuple

LINK = "link-"
"""What the version of a link that is not followed begins with; that of a file is hexadecimal."""

_MADE_UP = frozenset(
    (
        "autofs",
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "efivarfs",
        "fusectl",
        "mqueue",
        "nsfs",
        "proc",
        "pstore",
        "securityfs",
        "selinuxfs",
        "sysfs",
        "tracefs",
    )
)


class Target(NamedTuple):
    """Where a link leads. status: of the target; None when it is not to be followed. is_folder: only then entered."""

    status: os.stat_result | None
    is_folder: bool = False


NOT_FOLLOWED = Target(None)


def link_etag(status: os.stat_result) -> str:
    """Version of a link that is not followed: its own time in ns, and the length of what it says."""
    return f"{LINK}{status.st_mtime_ns:x}-{status.st_size:x}"


def is_within(path: bytes, folder: bytes) -> bool:
    """Whether a real path is a real folder, or below it."""
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


def target_of(link: bytes, root: bytes, *, follow: bool) -> Target:
    """Whether a link is followed. root: real path of the source's root; follow: whether the source lets links out."""
    try:
        path = os.path.realpath(link, strict=True)
        status = os.stat(path)  # noqa: PTH116 - names need not be valid text
    except OSError:
        return NOT_FOLLOWED  # it leads nowhere, in a circle, or where this user may not look
    inside = is_within(path, root)
    if (not inside and not follow) or is_made_up(status.st_dev):
        return NOT_FOLLOWED
    if not os.path.isdir(path):  # noqa: PTH112
        return Target(status)
    holds_itself = is_within(os.path.realpath(os.path.dirname(link)), path)  # noqa: PTH120
    return NOT_FOLLOWED if inside or holds_itself else Target(status, is_folder=True)


def lies_within(fd: int, path: str, root: bytes) -> bool:
    """Whether an open file lies below a real folder, whatever its path has come to lead to."""
    if sys.platform == "linux":
        try:
            return is_within(os.readlink(b"/proc/self/fd/%d" % fd), root)  # noqa: PTH115
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
    return is_within(os.fsencode(os.path.realpath(path)), root)


@lru_cache(maxsize=256)
def is_made_up(device: int) -> bool:
    """Whether a file system holds what the system makes up as it is read, so that it is new each time.

    device: as `st_dev`. Only Linux tells; elsewhere none does.
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:  # noqa: PTH123
            for line in mounts:
                before, _, after = line.partition(" - ")
                if before.split(" ")[2] == number:
                    return after.split(" ", 1)[0] in _MADE_UP
    except (OSError, IndexError):
        return False
    return False
