"""Judges DICOMweb over a lake and a landing zone on Azurite: the corpus goes into a container and comes out of one.

    python .ci/dicomweb_over_azurite.py CORPUS JUDGE OUTPUT

CORPUS: a folder. JUDGE: the script that asks the server and compares. OUTPUT: a file for what the judge says, one line
for each rule. The server's own words go to OUTPUT.served. Exit 1 when ingesting fails or the server does not answer;
what the judge says is looked at by who calls this.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dicom_assets_tests.azure.azurite import azurite, executable, new_container

COMMAND = [sys.executable, "-W", "ignore", "-c", "import sys; from dicom_assets.cli.main import main; sys.exit(main())"]


def main() -> None:
    """Puts the corpus there, ingests it, serves it and has it judged."""
    corpus, judge, output = (Path(one).resolve() for one in sys.argv[1:4])
    if executable() is None:
        sys.exit("Azurite is not installed: run `make node`.")
    with tempfile.TemporaryDirectory() as folder, azurite(Path(folder)) as environment:
        os.environ.update(environment)
        zone, lake = new_container(), new_container()
        zone.upload(corpus)
        where = ["--landing", zone.url, "--lake", lake.url]
        began = time.monotonic()
        subprocess.run([*COMMAND, "ingest", *where], check=True, cwd=folder)
        print(f"ingested in {time.monotonic() - began:.0f} s", flush=True)
        log = output.with_suffix(".served")
        with log.open("wb") as sink:
            server = subprocess.Popen([*COMMAND, "serve", *where, "--port", "0"], cwd=folder, stderr=sink)
        try:
            url = _address(server, log)
            with output.open("wb") as sink:
                subprocess.run([sys.executable, judge, "--url", url, "--landing", corpus], stdout=sink)
        finally:
            server.terminate()
            server.wait(60)
        print(f"judged after {time.monotonic() - began:.0f} s", flush=True)


def _address(server: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(1_200):
        found = re.search(r"answers at (http://\S+)", log.read_text(errors="replace"))
        if found:
            return found[1]
        if server.poll() is not None:
            break
        time.sleep(0.1)
    sys.exit(f"The server did not begin to answer:\n{log.read_text(errors='replace')[-2000:]}")


if __name__ == "__main__":
    main()
