"""OHIF's built viewer on this machine: npm's package `@ohif/app`, fetched, verified, unpacked, removed.

Belongs here: the package and its folder. Does not belong here: serving it (`ohif_pages`), options (`cli.viewer`).

The folder holds `ohif-{version}-{random}` and `ohif.json`, which names it. A new one is unpacked whole before the name
is replaced, so whoever is interrupted leaves what was there before; what nobody names is removed by the next install.

The package is built for the root of a server. Its scripts and styles are changed as they are unpacked, so that they
look for the others beside themselves: nothing else of it is.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import httpx
import orjson

from dicom_assets.sections import UserError
from dicom_assets.settings import Settings

PACKAGE, VERSION = "@ohif/app", "3.13.2"
INTEGRITY = "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
"""Of the package's archive, as npm tells it (Subresource Integrity)."""

_ARCHIVE_MOST = 512 << 20
_UNPACKED_MOST = 1 << 30
_MEMBERS_MOST = 20_000
_SECONDS = 600.0
_BLOCK = 1 << 20
_LEFT_SECONDS = 3_600
"""Age of what an install has left behind from which on nobody can still be at work on it."""

_LEFT_OUT = "ort"
"""Models for segmentation in the browser, 136 MB, which OHIF fetches when they are asked for."""

_USER_DATA = {"win32": ("LOCALAPPDATA", "AppData/Local"), "darwin": (None, "Library/Application Support")}
_USER_DATA_ELSEWHERE = ("XDG_DATA_HOME", ".local/share")
"""The variable that names the user's data folder, and where it lies below the home without it."""

_REGISTRY = ("npm_config_registry", "NPM_CONFIG_REGISTRY")
"""Variables that name a registry of npm."""

_NAME = re.compile(r"ohif-[0-9.]+-[0-9a-f]{8}").fullmatch
_POINTER = "ohif.json"
_ROOTED = (
    # Where a script looks for others, and a style for fonts.
    (".js", b'__webpack_require__.p = "/";',
     b'__webpack_require__.p = self.PUBLIC_URL || new URL("./", self.location.href).pathname;'),
    (".css", b"url(/", b"url("),
)  # fmt: skip


class ViewerError(UserError):
    """OHIF cannot be installed; the message says why, and what to do."""


@dataclass(frozen=True)
class Installed:
    """OHIF as it is installed. pages: the folder of its built pages."""

    version: str
    pages: Path

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(one.stat().st_size for one in self.pages.rglob("*") if one.is_file())


def folder_of(settings: Settings, environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Where OHIF lies: the setting `viewer_folder`, or the user's own data folder as the platform has it."""
    if settings.serve.viewer_folder is not None:
        return Path(settings.serve.viewer_folder)
    variable, below = _USER_DATA.get(platform, _USER_DATA_ELSEWHERE)
    named = environment.get(variable) if variable is not None else None
    data = Path(named) if named else Path.home() / below
    return data / "dicom-assets" / "viewer"


def installed(settings: Settings) -> Installed | None:
    """What is installed; None without it."""
    folder = folder_of(settings)
    try:
        told = orjson.loads((folder / _POINTER).read_bytes())
        name, version = told["folder"], told["version"]
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        return None
    pages = folder / str(name)
    return Installed(str(version), pages) if _NAME(str(name)) and (pages / "index.html").is_file() else None


def install(settings: Settings, archive: Path) -> Installed:
    """Verifies and unpacks the package's archive, and puts it in the place of what is there. Raises ViewerError."""
    folder = folder_of(settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        new = folder / f"ohif-{VERSION}-{secrets.token_hex(4)}"
        with archive.open("rb") as opened:
            verify(opened)
            opened.seek(0)
            new.mkdir()
            try:
                unpack(opened, new)
            except BaseException:
                shutil.rmtree(new, ignore_errors=True)
                raise
        before = installed(settings)
        _point_to(folder, new.name)
    except OSError as error:
        raise ViewerError(f"OHIF cannot be put into {folder}, or {archive} not read: {error.strerror}.") from None
    _clear(folder, new.name, before)
    return Installed(VERSION, new)


def verify(opened: IO[bytes]) -> None:
    """Raises ViewerError for an archive that is not the one that is meant, to the byte."""
    digest = hashlib.sha512()
    while block := opened.read(_BLOCK):
        digest.update(block)
    found = f"sha512-{base64.b64encode(digest.digest()).decode('ascii')}"
    if found != INTEGRITY:
        raise ViewerError(
            f"This is not {PACKAGE} {VERSION} as npm has it: its digest is {found} instead of {INTEGRITY}. Nothing was "
            f"changed. `npm pack {PACKAGE}@{VERSION}` fetches it."
        )


def unpack(opened: IO[bytes], folder: Path) -> None:
    """Writes the pages of the package into a folder. Raises ViewerError for what has no place in such an archive."""
    count = size = 0
    try:
        with tarfile.open(fileobj=opened, mode="r:gz") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                count, size = count + 1, size + member.size
                if member.isdir():
                    continue
                if not member.isreg() or path.is_absolute() or ".." in path.parts or set("\\:") & set(member.name):
                    raise ViewerError("The archive holds a link or a name that leads out of it. Nothing was changed.")
                if count > _MEMBERS_MOST or size > _UNPACKED_MOST:
                    raise ViewerError("The archive holds far more than a viewer has. Nothing was changed.")
                below = path.parts[2:]  # each a name, whatever slashes stood between them
                if path.parts[:2] != ("package", "dist") or not below or below[0] == _LEFT_OUT:
                    continue
                source = archive.extractfile(member)
                assert source is not None, "a regular file has bytes"
                target = folder.joinpath(*below)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(_beside_itself(below[-1], source.read()))
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ViewerError("The archive cannot be unpacked. Nothing was changed.") from None
    if not (folder / "index.html").is_file():
        raise ViewerError("The archive holds no viewer. Nothing was changed.")


def _beside_itself(name: str, content: bytes) -> bytes:
    for ending, rooted, relative in _ROOTED:
        if name.endswith(ending):
            content = content.replace(rooted, relative)
    return content


def _point_to(folder: Path, name: str) -> None:
    written = folder / f"{_POINTER}.{secrets.token_hex(4)}"
    written.write_bytes(orjson.dumps({"version": VERSION, "folder": name}))
    written.replace(folder / _POINTER)


def _clear(folder: Path, named: str, before: Installed | None) -> None:
    """Removes what is not named any more, and what earlier installs have left behind."""
    with contextlib.suppress(OSError):  # the new one is there, and the next install clears again
        for one in folder.iterdir():
            is_old = one.stat().st_mtime < time.time() - _LEFT_SECONDS
            if _NAME(one.name) and one.name != named and (is_old or (before is not None and one == before.pages)):
                shutil.rmtree(one, ignore_errors=True)
            elif one.name.startswith(f"{_POINTER}.") and is_old:
                one.unlink(missing_ok=True)


def remove(settings: Settings) -> bool:
    """Takes OHIF away; whether there was something. Raises ViewerError."""
    folder = folder_of(settings)
    there = [one for one in folder.iterdir() if _NAME(one.name)] if folder.is_dir() else []
    try:
        (folder / _POINTER).unlink(missing_ok=True)
        for one in there:
            shutil.rmtree(one)
    except OSError as error:
        raise ViewerError(f"OHIF cannot be removed from {folder}: {error.strerror}.") from None
    return bool(there)


# Fetching


@contextmanager
def fetched(registry: str | None, environment: Mapping[str, str] = os.environ) -> Iterator[Path]:
    """The package's archive from a registry of npm, until the block ends. Raises ViewerError.

    registry: its address; without it the `npm` command is asked, which knows the user's registry, proxy and
    credentials; without that command the environment (npm_config_registry).
    """
    with tempfile.TemporaryDirectory(prefix="dicom-assets-viewer-") as folder:
        yield _fetch(registry, environment)(Path(folder))


def _fetch(registry: str | None, environment: Mapping[str, str]) -> Callable[[Path], Path]:
    npm = shutil.which("npm", path=environment.get("PATH"))
    if registry is None and npm is not None:
        command = npm
        return lambda folder: _by_npm(command, folder, environment)
    known = registry or next((environment[one] for one in _REGISTRY if environment.get(one)), None)
    if not known:
        raise ViewerError(
            "There is no `npm` command here, which would know a registry. Give one by --registry, or fetch the package "
            f"elsewhere by `npm pack {PACKAGE}@{VERSION}` and give the file by --from."
        )
    address = known.rstrip("/")
    return lambda folder: _by_http(address, folder)


def _by_npm(npm: str, folder: Path, environment: Mapping[str, str]) -> Path:
    command = [npm, "pack", "--silent", f"{PACKAGE}@{VERSION}"]
    try:
        done = subprocess.run(
            command, cwd=folder, env=dict(environment), capture_output=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        raise ViewerError(f"`{' '.join(command[1:])}` by npm does not come to an end.") from None
    found = sorted(folder.glob("*.tgz"))
    if done.returncode or not found:
        raise ViewerError(
            f"npm could not fetch the package (exit code {done.returncode}); `npm pack {PACKAGE}@{VERSION}` shows why. "
            "A file that was fetched elsewhere is given by --from."
        )
    return found[0]


def _by_http(registry: str, folder: Path) -> Path:
    target = folder / "package.tgz"
    try:
        with httpx.Client(follow_redirects=True, timeout=60) as client:
            told = client.get(f"{registry}/{PACKAGE.replace('/', '%2f')}/{VERSION}")
            told.raise_for_status()
            with client.stream("GET", told.json()["dist"]["tarball"]) as answer, target.open("wb") as sink:
                answer.raise_for_status()
                for block in answer.iter_bytes(_BLOCK):
                    sink.write(block)
                    if sink.tell() > _ARCHIVE_MOST:
                        raise ViewerError("The registry sends far more than the package. Nothing was changed.")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        status = f", status {error.response.status_code}" if isinstance(error, httpx.HTTPStatusError) else ""
        raise ViewerError(
            f"The registry does not give the package ({type(error).__name__}{status}). Look at its address, or give a "
            f"file by --from: `npm pack {PACKAGE}@{VERSION}` fetches it."
        ) from None
    return target
