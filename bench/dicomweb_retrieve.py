"""Retrieving over HTTP against Orthanc with its SQLite index: the same files, the same client, in turns, in one run.

Belongs here: metadata of a study, native frames. Does not belong here: searching.

    python -m bench.dicomweb_retrieve [--instances N] [--rounds N] [--json FILE]

Orthanc listens on every interface whatever it is told, so both servers run in a network namespace of their own, which
this module enters by starting itself there. Besides seconds on the clock the processor seconds of each server are told,
which mean something on a machine that does other things as well.

The client is no part of what is compared: what an answer holds is looked at once, and each further one is read over the
same connection into memory that is there already. A client that puts an answer together takes 10 ms for 7 MB.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from dicom_assets_tests.service import orthanc

PLAIN = {"Accept-Encoding": "identity"}
"""Compressing and what the client does with an answer are no part of what is compared."""
JSON = {"Accept": "application/dicom+json", **PLAIN}
FRAME = {"Accept": 'multipart/related; type="application/octet-stream"', **PLAIN}
AT_LEAST = {"metadata": 20.0, "frame": 1.0}
"""What is asked for: how many times as fast as Orthanc, by the processor's time and the clock's."""

_FRAMES = 40


def files(instances: int) -> list[bytes]:
    """A study of one series: an image of CT that comes with pydicom, with numbers and UIDs of its own."""
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    made = []
    for number in range(1, instances + 1):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.InstanceNumber = number
        sink = io.BytesIO()
        dataset.save_as(sink)
        made.append(sink.getvalue())
    return made


@contextmanager
def served(folder: Path, data: list[bytes]) -> Iterator[tuple[str, int]]:
    """The lake over a landing folder with these files, served by the command; its URL and process."""
    landing = folder / "landing"
    landing.mkdir()
    for number, one in enumerate(data):
        path = landing / f"{number:05d}.dcm"
        path.write_bytes(one)
        os.utime(path, (time.time() - 86_400,) * 2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = [sys.executable, "-c", "import sys; from dicom_assets.cli.main import main; sys.exit(main())"]
    where = ["--landing", str(landing), "--lake", str(folder / "lake")]
    subprocess.run([*start, "ingest", *where], check=True, capture_output=True, cwd=folder)
    process = subprocess.Popen([*start, "serve", *where, "--port", str(port)], stderr=subprocess.DEVNULL, cwd=folder)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                httpx.get(f"{url}/dicom-web/studies/1.2/metadata")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(30)


class Client:
    """Asks one server over one connection."""

    def __init__(self, url: str) -> None:
        """url: of the server."""
        self._url = url
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=300)
        self._into = bytearray(1 << 20)

    def whole(self, path: str, headers: dict[str, str]) -> bytes:
        """An answer, to be looked at."""
        return httpx.get(self._url + path, headers=headers, timeout=300).raise_for_status().content

    def read(self, path: str, headers: dict[str, str]) -> int:
        """Reads an answer; its bytes."""
        answer, size = self._begin(path, headers), 0
        assert answer.status == 200
        while taken := answer.readinto(self._into):
            size += taken
        return size

    def _begin(self, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        try:
            self._connection.request("GET", path, headers=headers)
            return self._connection.getresponse()
        except http.client.RemoteDisconnected:  # it was kept for long enough: the next one is a new one
            self._connection.request("GET", path, headers=headers)
            return self._connection.getresponse()

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()


def processor_seconds(process: int) -> float:
    """Of a process and those that it has started."""
    own = psutil.Process(process)
    return sum(sum(one.cpu_times()[:2]) for one in [own, *own.children(recursive=True)])


def measured(process: int, act: Callable[[], None], rounds: int) -> tuple[float, float]:
    """Processor seconds of a process, and the median on the clock, of one round."""
    act()
    before, clock = processor_seconds(process), []
    for _ in range(rounds):
        begun = time.perf_counter()
        act()
        clock.append(time.perf_counter() - begun)
    return (processor_seconds(process) - before) / rounds, statistics.median(clock)


def compare(instances: int, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of both, and how many times as fast ours is, by what is asked. Only within a namespace."""
    data = files(instances)
    one = pydicom.dcmread(io.BytesIO(data[0]), stop_before_pixels=True)
    study = f"/dicom-web/studies/{one.StudyInstanceUID}"
    images = [pydicom.dcmread(io.BytesIO(x), stop_before_pixels=True).SOPInstanceUID for x in data[:_FRAMES]]
    frames = [f"{study}/series/{one.SeriesInstanceUID}/instances/{image}/frames/1" for image in images]
    asked = {"metadata": ([f"{study}/metadata"], JSON, instances), "frame": (frames, FRAME, len(frames))}
    with (
        tempfile.TemporaryDirectory() as folder,
        orthanc.running(Path(folder) / "orthanc") as their_url,
        served(Path(folder), data) as (our_url, our_process),
        closing(Client(their_url)) as theirs,
        closing(Client(our_url)) as ours,
    ):
        their_process = next(p.pid for p in psutil.process_iter(["name"]) if p.info["name"] == "Orthanc"
                             and folder in " ".join(p.cmdline()))  # fmt: skip
        for x in data:
            httpx.post(f"{their_url}/instances", content=x, timeout=300).raise_for_status()

        def asking(client: Client, paths: list[str], headers: dict[str, str]) -> Callable[[], None]:
            wholes = {path: client.whole(path, headers) for path in paths}
            if headers is JSON:
                assert all(whole.count(b'"00080018"') >= instances for whole in wholes.values())
            else:
                assert all(len(whole) > 32_768 for whole in wholes.values())
            least = {path: len(whole) // 2 for path, whole in wholes.items()}  # a boundary may be longer or shorter

            def ask() -> None:
                for path in paths:
                    assert client.read(path, headers) > least[path]

            return ask

        found = {}
        for name, (paths, headers, count) in asked.items():
            their_cpu, their_clock = measured(their_process, asking(theirs, paths, headers), max(rounds // 3, 1))
            our_cpu, our_clock = measured(our_process, asking(ours, paths, headers), rounds)
            found[name] = {
                "orthanc_ms": 1_000 * their_clock / count,
                "lake_ms": 1_000 * our_clock / count,
                "orthanc_processor_ms": 1_000 * their_cpu / count,
                "lake_processor_ms": 1_000 * our_cpu / count,
                "times": their_clock / our_clock,
                "times_processor": their_cpu / our_cpu,
            }
        return found


def main() -> None:
    """Measures and prints; exit 1 when less than is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instances", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if os.environ.get(orthanc.INSIDE) != "1":
        why = orthanc.why_not()
        if why is not None:
            print(why)
            return
        sys.exit(orthanc.run_inside([sys.executable, "-m", "bench.dicomweb_retrieve", *sys.argv[1:]]))
    found = compare(args.instances, args.rounds)
    print(f"{args.instances} instances; milliseconds an instance or a frame")
    for name, row in found.items():
        print(
            f"{name:10} Orthanc {row['orthanc_ms']:8.2f} ({row['orthanc_processor_ms']:.2f} of a processor)   "
            f"lake {row['lake_ms']:8.2f} ({row['lake_processor_ms']:.2f})   x {row['times']:.1f} "
            f"({row['times_processor']:.1f})"
        )
    if args.json:
        args.json.write_text(json.dumps(found, indent=2))
    sys.exit(any(found[name]["times"] < least for name, least in AT_LEAST.items()))


if __name__ == "__main__":
    main()
