"""Runs in the engines' environment: executes a notebook with nbclient, and prints what frames its cells left behind.

Arguments: the notebook, names of variables. stdout: by name, the frame's rows with their values in words.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TOLD = """
import json as _json

def _text(value):
    if value is None:
        return None
    if isinstance(value, float | int):
        return str(float(value))
    return str([*value]) if not isinstance(value, str) and hasattr(value, "__len__") else str(value)[:10]

def _rows(frame):
    plain = frame.astype(object).where(frame.notna(), None).map(_text)
    return _json.loads(plain.to_json(orient="values"))

print(_json.dumps({name: _rows(globals()[name]) for name in %r}))
"""

notebook = nbformat.read(sys.argv[1], as_version=4)
notebook.cells.append(nbformat.v4.new_code_cell(TOLD % (sys.argv[2:],)))
client = NotebookClient(notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": str(Path.cwd())}})
client.execute()
print("".join(one["text"] for one in notebook.cells[-1].outputs if one.get("name") == "stdout").strip(), flush=True)
os._exit(0)
