"""Searching the served lake over HTTP: against Orthanc, and in large lakes.

    python -m bench.dicomweb_search [--studies N] [--rounds N] [--lakes FOLDER …] [--scale] [--json FILE]

Against Orthanc (SQLite index, DICOMweb plugin): the same generated studies are ingested and uploaded, and both are
asked, in turn, what OHIF's list of studies asks for: each of its filters, and the series of a study. Both run where
there is nothing but loopback (`dicom_assets_tests.service.orthanc`). lakes: such as `bench.scale_lake` and
`bench.idc_lake` make; each is served and asked the same, with values that are there. Numbers are medians over HTTP.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from bench.idc_lake import installed_index
from bench.idc_lake import make as make_idc
from bench.scale import lake_folder
from bench.scale_lake import make
from dicom_assets.lake.query import connect, existing
from dicom_assets_tests.service import orthanc
from dicom_assets_tests.support.dicoms import dicom, uid

LARGE = (1_000_000, 10_000_000)
"""Instances of large lakes."""

LIST = {
    "limit": "101",
    "offset": "0",
    "fuzzymatching": "true",
    "includefield": "00081030,00080060,00080090,00100030",
}
"""What OHIF's list of studies always asks for."""

_ANSWERS = re.compile(r"http://[^\s/]+")
_COMMAND = [sys.executable, "-W", "ignore", "-c", "from dicom_assets.cli.main import main; main()"]

Question = tuple[str, str, dict[str, str]]
"""A name, a path and parameters."""


def questions(study: str, values: Mapping[str, str]) -> list[Question]:
    """OHIF's ten: the list, its filters, and what it asks of a study. study: a UID. values: of filters, by keyword."""
    filters = {
        "list": {},
        "list, second page": {"offset": "101"},
        "name": {"PatientName": f"*{values['PatientName']}*"},
        "patient": {"00100020": f"*{values['PatientID']}*"},
        "accession number": {"AccessionNumber": f"*{values['AccessionNumber']}*"},
        "description": {"StudyDescription": f"*{values['StudyDescription']}*"},
        "modalities": {"ModalitiesInStudy": values["ModalitiesInStudy"]},
        "dates": {"StudyDate": values["StudyDate"]},
        "study": {"StudyInstanceUID": study},
    }
    found: list[Question] = [(name, "/studies", {**LIST, **more}) for name, more in filters.items()]
    fields = {"includefield": "00080021,00080031,0008103E,00200011"}
    return [*found, ("series of a study", f"/studies/{study}/series", fields)]


@contextmanager
def served(lake: Path, log: Path) -> Iterator[tuple[str, int]]:
    """The lake answering in a process of its own: its base address, its process."""
    with log.open("w") as sink:
        process = subprocess.Popen(
            [*_COMMAND, "serve", "--lake", str(lake), "--port", "0"],
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
    try:
        yield _address(process, log) + "/dicom-web", process.pid
    finally:
        process.terminate()
        process.wait(30)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(600):
        found = _ANSWERS.search(log.read_text())
        if found:
            return found[0]
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit(f"The server did not begin to answer:\n{log.read_text()[-2000:]}")


def asked(
    services: Mapping[str, str], of_each: Sequence[Question], rounds: int
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, int]]]:
    """Median seconds, and rows, by service and question; services are asked in turn, so that noise is that of all."""
    seconds: dict[str, dict[str, list[float]]] = {name: {} for name in services}
    rows: dict[str, dict[str, int]] = {name: {} for name in services}
    with httpx.Client(timeout=120, trust_env=False) as client:
        for number in range(rounds + 1):
            for what, path, parameters in of_each:
                query = urlencode(parameters, safe="*,")  # as browsers write it: Orthanc does not decode it
                for name, base in services.items():
                    began = time.perf_counter()
                    answer = client.get(f"{base}{path}?{query}", headers={"Accept": "application/dicom+json"})
                    taken = time.perf_counter() - began
                    answer.raise_for_status()
                    rows[name][what] = len(answer.json()) if answer.content else 0
                    if number:  # the first one warms up
                        seconds[name].setdefault(what, []).append(taken)
    medians = {name: {what: statistics.median(taken) for what, taken in one.items()} for name, one in seconds.items()}
    return medians, rows


def memory(process: int) -> tuple[float, float]:
    """Bytes that a process holds, and has held at most."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return int(found["VmRSS"]) * 1024.0, int(found["VmHWM"]) * 1024.0


def against_orthanc(studies: int, rounds: int) -> dict[str, Any]:
    """Both over the same generated studies."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "landing").mkdir()
        _write(folder / "landing", studies)
        _ingest(folder)
        with served(folder / "lake", folder / "served.log") as (ours, _), orthanc.running(folder / "orthanc") as theirs:
            with httpx.Client(base_url=theirs, timeout=60, trust_env=False) as client:
                for path in sorted((folder / "landing").iterdir()):
                    client.post("/instances", content=path.read_bytes()).raise_for_status()
            values = {
                "PatientName": "Family7", "PatientID": "P1", "AccessionNumber": "7", "StudyDescription": "Chest",
                "ModalitiesInStudy": "CT,MR", "StudyDate": "20180101-20201231",
            }  # fmt: skip
            services = {"lake": ours, "orthanc": f"{theirs}/dicom-web"}
            seconds, rows = asked(services, questions(uid(studies // 2), values), rounds)
            return {"studies": studies, "seconds": seconds, "rows": rows}


def _write(landing: Path, studies: int) -> None:
    for number in range(studies):
        data = dicom(
            number,
            PatientName=f"Family{number % 50}^Given{number % 700}",
            PatientID=f"P{number // 3}",
            AccessionNumber=f"A{number}",
            StudyDate=f"{2015 + number % 8}{1 + number % 12:02d}{1 + number % 28:02d}",
            StudyDescription=("Chest", "Brain", "Abdomen", "Hand")[number % 4],
            Modality=("CT", "MR", "US", "DX")[number % 4],
        )
        (landing / f"{number:06d}.dcm").write_bytes(data)
        os.utime(landing / f"{number:06d}.dcm", (1_700_000_000, 1_700_000_000))


def _ingest(folder: Path) -> None:
    subprocess.run(
        [*_COMMAND, "ingest", "--landing", str(folder / "landing"), "--lake", str(folder / "lake")],
        check=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def in_lake(lake: Path, rounds: int) -> dict[str, Any]:
    """One lake, asked with values that it has."""
    study, values, sizes = _values(str(lake))
    with tempfile.TemporaryDirectory() as folder, served(lake, Path(folder) / "log") as (base, process):
        of_each, before = questions(study, values), processor_seconds(process)
        seconds = asked({"lake": base}, of_each, rounds)[0]["lake"]
        taken = (processor_seconds(process) - before) / (len(of_each) * (rounds + 1))
        now, most = memory(process)
    return {**sizes, "seconds": seconds, "processor": taken, "memory": now, "most_memory": most}


def processor_seconds(process: int) -> float:
    """Seconds of processor time that a process has taken."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _values(uri: str) -> tuple[str, dict[str, str], dict[str, int]]:
    """Values of one study in the middle of a lake, such as somebody would look for, and how many rows there are."""
    with connect(existing(uri), ["study", "series", "instance"]) as connection:
        counts = connection.execute(
            "SELECT (SELECT count(*) FROM study), (SELECT count(*) FROM series), "
            "(SELECT sum(instance_count) FROM study)"
        ).fetchall()[0]
        found = connection.execute(
            "SELECT StudyInstanceUID, PatientName, PatientID, AccessionNumber, StudyDescription, ModalitiesInStudy "
            "FROM study WHERE StudyDescription IS NOT NULL AND StudyDate IS NOT NULL "
            "ORDER BY md5(StudyInstanceUID) LIMIT 1"
        ).fetchall()[0]
    study, name, patient, accession, description, modalities = found
    values = {
        "PatientName": name[1:5], "PatientID": patient[-4:], "AccessionNumber": accession[-3:],
        "StudyDescription": description[:4].replace("*", "?"), "ModalitiesInStudy": ",".join([*modalities[:1], "MR"]),
        "StudyDate": "20100101-20151231",
    }  # fmt: skip
    return study, values, dict(zip(("studies", "series", "instances"), map(int, counts), strict=True))


def _scale(folder: Path) -> Iterator[Path]:
    """Large lakes, made where they are missing."""
    for size in LARGE:
        lake = lake_folder(folder, size)
        if not (lake / "_lake.json").exists():
            make(str(lake.resolve()), size)
        yield lake
    index = installed_index()
    if index is None:
        print("Without idc-index-data there is no lake of the Imaging Data Commons.")
        return
    if not (folder / "idc" / "_lake.json").exists():
        make_idc(str((folder / "idc").resolve()), index)
    yield folder / "idc"


def _report(result: Mapping[str, Any]) -> Iterator[str]:
    compared = result.get("orthanc")
    if compared:
        ours, theirs = compared["seconds"]["lake"], compared["seconds"]["orthanc"]
        yield f"{compared['studies']:,} studies, median of each question over HTTP:"
        rows = compared["rows"]
        for what in ours:
            ratio, found = theirs[what] / ours[what], f"{rows['lake'][what]} and {rows['orthanc'][what]} rows"
            times = f"{ours[what] * 1e3:8.1f} ms   Orthanc {theirs[what] * 1e3:8.1f} ms"
            yield f"  {what:20s} {times}   x {ratio:.1f}   {found}"
        both = [statistics.median(one.values()) for one in (ours, theirs)]
        yield f"  {'median of all':20s} {both[0] * 1e3:8.1f} ms   Orthanc {both[1] * 1e3:8.1f} ms"
        yield f"  {'':20s} x {both[1] / both[0]:.1f}"
    for name, lake in result["lakes"].items():
        yield f"{name}: {lake['studies']:,} studies, {lake['series']:,} series, {lake['instances']:,} instances:"
        for what, seconds in lake["seconds"].items():
            yield f"  {what:20s} {seconds * 1e3:8.1f} ms"
        yield f"  {'median of all':20s} {statistics.median(lake['seconds'].values()) * 1e3:8.1f} ms"
        yield f"  {'processor time':20s} {lake['processor'] * 1e3:8.1f} ms for each, on average"
        yield f"  {'memory':20s} {lake['memory'] / 1e6:8.0f} MB, at most {lake['most_memory'] / 1e6:.0f} MB"


def _in_namespace() -> int:
    """Runs this benchmark again where there is nothing but loopback; the exit code."""
    command = 'ip link set lo up && exec "$@"'
    unshare = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    return subprocess.run(
        [
            *unshare,
            "sh",
            "-c",
            command,
            "sh",
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "bench.dicomweb_search",
            *sys.argv[1:],
        ],
        env={**os.environ, orthanc.INSIDE: "1"},
    ).returncode


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=10_000, help="generated for Orthanc and the lake; 0 for none")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--lakes", type=Path, nargs="*", default=[])
    parser.add_argument(
        "--scale", action="store_true", help="the lakes of bench.scale, and the index of idc-index-data"
    )
    parser.add_argument("--folder", type=Path, default=Path("build/scale"), help="of the lakes of --scale")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    missing = orthanc.why_not() if arguments.studies else "not asked for"
    if missing is None and os.environ.get(orthanc.INSIDE) != "1":
        sys.exit(_in_namespace())
    lakes = [*arguments.lakes, *(_scale(arguments.folder) if arguments.scale else ())]
    found: dict[str, Any] = {"lakes": {one.name: in_lake(one.resolve(), arguments.rounds) for one in lakes}}
    if missing is None:
        found["orthanc"] = against_orthanc(arguments.studies, arguments.rounds)
    elif arguments.studies:
        print(missing)
    print("\n".join(_report(found)))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
