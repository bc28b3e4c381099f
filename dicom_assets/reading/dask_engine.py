"""Reading on a Dask cluster: the chunks of one huge batch spread over machines, results back in order.

Belongs here: a ReadingEngine whose chunks are tasks of a Dask scheduler. Does not belong here: starting a cluster
(dask-jobqueue, dask-kubernetes and `dask scheduler` do that), committing (workers never do; the run publishes).

On a Dask worker each chunk is read by a watched process of its own (`engine.ProcessEngine`), so an object that hangs or
crashes is read again alone there, and blamed when it does so again, as it is here. A worker that is lost takes its
chunks with it, and the scheduler gives them to another one: reading has no effects, so a chunk that is read twice is
read once.

Needs the extra `dask`. The address comes from DICOM_ASSETS_DASK: `tcp://host:8786`, or the path of a scheduler file.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import platform
import threading
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from itertools import chain
from types import TracebackType
from typing import Any, Self

from dicom_assets.landing.opening import open_store
from dicom_assets.landing.store import ObjectError, ObjectRef, SourceUnavailable
from dicom_assets.reading.engine import ADDRESS_VARIABLE, IN_FLIGHT, Beat, EngineFailed, ProcessEngine, Result
from dicom_assets.settings import ReadingLimits, SettingsError

_CONNECT_SECONDS = 30
_WORKER_SECONDS = 120
_SHOWN = 3
_MAX_LOST = 3  # times that a chunk may take a worker with it, beyond those that the scheduler allows, before it fails

_PACKAGES = ("dicom-assets", "dask", "distributed", "pyarrow", "pydicom", "obstore")
"""Packages whose versions must agree: what is pickled, and what decides on a row."""


@dataclass(frozen=True)
class _Task:
    """A chunk on its way. Its repr is all that Dask's logs ever show: a chunk holds paths."""

    function: Callable[[Any, Beat], Any]
    limits: ReadingLimits
    chunk: Any

    def __repr__(self) -> str:
        return "chunk"


_here = threading.local()


def read_task(task: _Task) -> list[Any]:
    """Runs on a Dask worker: reads one chunk in a watched process that stays for the next one of this thread.

    Returns what the function returns, part by part where the chunk had to be divided.
    """
    engine = getattr(_here, "engine", None)
    if engine is None:
        # Dask marks its workers as processes that end with their parent, which multiprocessing lets have no children;
        # ours end with the worker by themselves.
        multiprocessing.current_process().daemon = False
        engine = _here.engine = ProcessEngine(task.limits.model_copy(update={"workers": 1}))
    try:
        return list(engine.run(task.function, [task.chunk]))
    except EngineFailed:
        engine.close()
        del _here.engine
        raise


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that must agree; `missing` for one that is not installed."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def can_open(chunk: Any) -> bool:
    """Whether the first object of a chunk can be opened from here; True for one that comes from no source."""
    settings = getattr(chunk, "settings", None)
    if settings is None or not chunk.objects:
        return True
    first = chunk.objects[0]
    first = getattr(first, "located", first)
    try:
        store = open_store(settings)
        (opened,) = store.open_all([ObjectRef(first.uri, first.etag, 0)], 1)
    except (SourceUnavailable, SettingsError, OSError, ValueError):
        return False
    if isinstance(opened, ObjectError):
        return opened.code == "CHANGED_DURING_READ"
    opened.close()
    return True


class DaskEngine:
    """A ReadingEngine on a Dask cluster; a context manager that leaves the cluster as it was."""

    def __init__(self, address: str, limits: ReadingLimits) -> None:
        """Connects. address: of a scheduler, or a scheduler file. Raises EngineFailed, SettingsError."""
        try:
            distributed: Any = importlib.import_module("distributed")
        except ImportError:
            raise SettingsError(f"{ADDRESS_VARIABLE} is set: install the extra with `pip install '.[dask]'`.") from None
        self._limits = limits
        where: dict[str, Any] = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
        try:
            self._client: Any = distributed.Client(
                **where, timeout=_CONNECT_SECONDS, set_as_default=False, name="dicom-assets"
            )
        except (OSError, ValueError, TimeoutError) as error:
            raise EngineFailed(
                f"There is no Dask scheduler at {address} ({type(error).__name__}). Start it, or unset "
                f"{ADDRESS_VARIABLE} to read on this machine."
            ) from None

    def __enter__(self) -> Self:
        """Begins."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes back what is still on its way."""
        self.close()

    def close(self) -> None:
        """Disconnects; chunks on the way are dropped."""
        self._client.close()

    def run(self, function: Callable[[Any, Beat], Result], chunks: Iterable[Any]) -> Generator[Result]:
        """What the function returns for each chunk, in order; see ReadingEngine.

        At most three chunks for each thread of the cluster are on the way. Raises EngineFailed.
        """
        remaining = iter(chunks)
        first = next(remaining, None)
        if first is None:
            return
        self._check(first)
        waiting: deque[tuple[Any, _Task]] = deque()
        try:
            for chunk in chain([first], remaining):
                task = _Task(function, self._limits, chunk)
                waiting.append((self._submit(task), task))
                while len(waiting) >= self._bound():
                    yield from self._result(*waiting.popleft())
            while waiting:
                yield from self._result(*waiting.popleft())
        finally:
            for future, _ in waiting:
                with contextlib.suppress(OSError, TimeoutError):
                    future.cancel()

    def _bound(self) -> int:
        threads: Mapping[str, int] = self._client.nthreads()
        return max(1, IN_FLIGHT * sum(threads.values()))

    def _submit(self, task: _Task) -> Any:
        return self._client.submit(read_task, task, key=f"chunk-{uuid.uuid4().hex}", pure=False)

    def _result(self, future: Any, task: _Task) -> list[Any]:
        from distributed import CancelledError, KilledWorker

        for _ in range(_MAX_LOST):
            try:
                return list(future.result())
            except EngineFailed:
                raise
            except KilledWorker:
                future = self._submit(task)
            except (OSError, TimeoutError, CancelledError) as error:
                raise EngineFailed(
                    f"The Dask scheduler is gone ({type(error).__name__}). Run the batch again."
                ) from None
            except Exception as error:  # noqa: BLE001 - what a worker raised; its message might quote an object
                raise EngineFailed(f"A Dask worker failed with {type(error).__name__}; see its log.") from None
        raise EngineFailed("Dask workers end while they read the same chunk, again and again: see their memory limits.")

    def _check(self, chunk: Any) -> None:
        """That workers are there, run the same versions, and reach the landing zone. Raises EngineFailed."""
        try:
            self._client.wait_for_workers(1, timeout=_WORKER_SECONDS)
            theirs = self._everywhere(versions)
            reached = self._everywhere(can_open, chunk)
        except TimeoutError:
            raise EngineFailed(f"The Dask cluster has no worker after {_WORKER_SECONDS} s. Start some.") from None
        except OSError as error:
            raise EngineFailed(f"The Dask scheduler is gone ({type(error).__name__}). Run the batch again.") from None
        without = sorted(worker for worker, answer in theirs.items() if not isinstance(answer, dict))
        if without:
            raise EngineFailed(
                f"{len(without)} Dask workers do not have dicom_assets ({', '.join(without[:_SHOWN])}). "
                "Install the same version there as here."
            )
        ours = versions()
        differing = sorted(
            {
                f"{package} {found[package]} on {worker}, {version} here"
                for worker, found in theirs.items()
                for package, version in ours.items()
                if found[package] != version
            }
        )
        if differing:
            shown = "; ".join(differing[:_SHOWN])
            raise EngineFailed(f"Versions differ between Dask workers and this run: {shown}. Install the same ones.")
        blind = sorted(worker for worker, answer in reached.items() if answer is not True)
        if blind and can_open(chunk):
            raise EngineFailed(
                f"{len(blind)} Dask workers cannot open objects of the landing zone that this run can open "
                f"({', '.join(blind[:_SHOWN])}). Mount the folder there, or give the workers the same credentials."
            )

    def _everywhere(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """What a function returns or raises on each worker; workers that are lost meanwhile are left out."""
        answers: Mapping[str, Any] = self._client.run(function, *arguments, on_error="return")
        return {worker: answer for worker, answer in answers.items() if not isinstance(answer, OSError)}
