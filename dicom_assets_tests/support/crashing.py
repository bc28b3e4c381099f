"""The command `dicom-assets` with a kill built in: `python -m …crashing OWNER METHOD CALL ingest --landing …`.

The process ends as by SIGKILL right after the given call of a method (`lake.delta:Lake replace 5`), without any
cleaning up. Belongs here: nothing else.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

STATUS = 77


def main() -> None:
    """Builds the kill in and runs the command."""
    place, method, call = sys.argv[1:4]
    module, owner = place.split(":")
    target = getattr(importlib.import_module(f"dicom_assets.{module}"), owner)
    kept = getattr(target, method)
    calls = 0

    def killing(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        result = kept(self, *arguments, **options)
        calls += 1
        if calls == int(call):
            os._exit(STATUS)
        return result

    setattr(target, method, killing)
    sys.argv = ["dicom-assets", *sys.argv[4:]]
    from dicom_assets.cli.main import main as command

    command()


if __name__ == "__main__":
    main()
