"""Writes constraints-hashed.txt: every pinned version with the SHA-256 of its file, for `pip install --require-hashes`.

    python deploy/hash_constraints.py

The files are those that pip takes on this machine, from whatever index it is configured for: an environment of its
own for each platform and version of Python. The file names no host.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PINS, HASHED = ROOT / "constraints.txt", ROOT / "constraints-hashed.txt"


def main() -> None:
    """Downloads what is pinned, one after the other, and writes the file."""
    lines = [
        "# Made by deploy/hash_constraints.py on Linux x86-64 with CPython 3.11; other platforms have other files."
    ]
    for pin in PINS.read_text(encoding="utf-8").split():
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, pin]
            subprocess.run(command, check=True)
            (file,) = Path(folder).iterdir()
            lines.append(f"{pin} --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}")
    HASHED.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
