"""The layers hold: who may import whom, which codes there are, and that the registry describes everything."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

import dicom_assets
from dicom_assets.schema.codes import CODES
from dicom_assets.schema.registry import TABLES

ROOT = Path(dicom_assets.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py"))
ORDER = (
    "catalogue",
    "serve",
    "monitoring",
    "batch",
    "curation",
    "reading",
    "service",
    "landing",
    "clinical",
    "fhir",
    "omop",
    "dicom",
    "engines",
    "lake",
    "storage",
    "schema",
)
"""Each package may import those behind it."""
DAGSTER_SIDE = ("defs", "definitions.py", "cli/main.py", "cli/verify.py")
LONGEST = 500


def part(path: Path) -> str:
    """The package that a module belongs to, or its own file name."""
    return path.relative_to(ROOT).parts[0]


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """What a file is parsed into, the whole module first."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@pytest.fixture(scope="module", autouse=True)
def _parsed_once() -> Iterator[None]:
    """What all files are parsed into is kept for this module alone."""
    yield
    nodes.cache_clear()


@cache
def imported(path: Path) -> tuple[str, ...]:
    """Every module that a file imports, wherever in it."""
    return tuple(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            if node.module == "dicom_assets":
                yield from (f"dicom_assets.{name.name}" for name in node.names)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _leaves() -> set[str]:
    own = {path.stem: path for path in ROOT.glob("*.py") if path.stem != "__init__"}
    leaves: set[str] = set()
    while True:
        allowed = {"dicom_assets", *(f"dicom_assets.{one}" for one in leaves)}
        more = {
            name
            for name, path in own.items()
            if {one for one in imported(path) if one.startswith("dicom_assets")} <= allowed
        }
        if more == leaves:
            return leaves
        leaves = more


LEAVES = _leaves()
"""Modules beside the packages that import nothing else of the project, such as settings: everybody may import them."""


def test_settings_import_nothing_of_the_project():
    assert "settings" in LEAVES


def test_a_module_imports_only_what_stands_behind_it():
    found = {}
    for path in (path for path in MODULES if part(path) in ORDER):
        own = {name.split(".")[1] for name in imported(path) if name.startswith("dicom_assets.")}
        found[named(path)] = own - {*ORDER[ORDER.index(part(path)) :], *LEAVES}
    assert len(found) > 400, "these are all modules"
    assert {name: more for name, more in found.items() if more} == {}


TWO_SIDES = {"azure", "clinical", "diagnostic_report", "hierarchy", "image_occurrence", "imaging_study"}
TWO_SIDES |= {
    "cohorts",
    "forwarding",
    "maintenance",
    "organize",
    "frames",
    "house_rules",
    "lineage",
    "promotion",
    "reread",
    "services",
    "upgrade",
    "verify",
}
"""Basenames that stand twice: an asset or a command and its domain module, one platform in storage and in landing."""


def _dotted(path: Path) -> str:
    name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    return name.removesuffix(".__init__")


def _circles() -> set[frozenset[str]]:
    """Modules that import each other, directly or through others, late imports included."""
    names = {_dotted(path): path for path in MODULES}
    below = {name: set[str]() for name in names}
    for name, path in names.items():
        for node in nodes(path):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dicom_assets."):
                base = (node.module or "").removeprefix("dicom_assets.")
                below[name] |= {one if (one := f"{base}.{part.name}") in names else base for part in node.names}
    reach = {name: set(found) for name, found in below.items()}
    for middle in names:
        for name in names:
            if middle in reach[name]:
                reach[name] |= reach[middle]
    return {frozenset(other for other in names if other in reach[name] and name in reach[other]) for name in names} - {
        frozenset()
    }


def test_no_modules_import_each_other_late_imports_included():
    assert _circles() == set()


REMEMBERED = {
    "clinical.alphabets._weights": "frequencies of the letters of each alphabet, constants of the module",
    "dicom.charset.codecs_of": "names of codecs by what a header declares: constants of PS3.3 C.12.1.1.2",
    "dicom.from_json._KEYS": "keys of tags in upper case, bounded",
    "dicom.iso2022._upper_half": "tables of a codec",
    "fhir.conversions.code": "a text for a text, bounded",
    "fhir.conversions.person_name": "a text for a text, bounded",
    "fhir.validation._aliases": "of classes of a library",
    "fhir.validation._codes": "of classes of a library",
    "fhir.validation._model": "of classes of a library",
    "fhir.validation._modules": "of classes of a library",
    "landing.azure._loop": "the event loop of the process, on a thread of its own; it knows no container",
    "landing.links.is_made_up": "which file systems the kernel makes up, by their number, bounded",
    "omop.concepts._packaged": "tables of the package",
    "omop.integers.natural_key": "a digest of a text, bounded",
    "reading.dask_engine._here": "the reading process of a Dask worker's thread, which outlives each task",
    "reading.memory._system": "the C library",
    "reading.processes._STARTING": "one process is started at a time, since `__main__` is changed meanwhile",
    "storage.azure.entra": "the credential of the process, which keeps its own tokens",
    "storage.azure.failures": "classes of a library",
    "storage.azure.storage_token": "asks the credential of the process",
}
"""Everything that a module remembers between two calls, and why it may: it is of no lake, no path and no connection."""

_CHANGES = {"append", "add", "update", "pop", "popitem", "setdefault", "clear", "extend", "insert", "remove", "discard"}
_HOLDS_STATE = {"local", "Lock", "RLock", "WeakKeyDictionary", "WeakValueDictionary", "OrderedDict", "Counter", "deque"}


def _called(node: ast.expr | None) -> str:
    """The last name of what is called, or of what decorates."""
    while isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _changed_names(tree: ast.Module) -> set[str]:
    """Names whose values functions of a module change, or bind anew."""
    found: set[str] = set()
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
        for node in ast.walk(function):
            if isinstance(node, ast.Global):
                found |= set(node.names)
            elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
                found.add(_called(node.value))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGES:
                found.add(_called(node.func.value))
    return found


def remembered(every: Sequence[ast.AST]) -> set[str]:
    """What a module remembers between two calls: functions with a cache, and values of the module that change.

    every: its nodes, the module itself first.
    """
    tree = every[0]
    assert isinstance(tree, ast.Module)
    changed = _changed_names(tree)
    found: set[str] = set()
    for node in every:
        if isinstance(node, ast.FunctionDef) and {"cache", "lru_cache"} & {_called(one) for one in node.decorator_list}:
            found.add(node.name)
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for name in (one.id for one in targets if isinstance(one, ast.Name)):
            if name in changed or _called(node.value) in _HOLDS_STATE:  # type: ignore[attr-defined]
                found.add(name)
    return found


def test_what_is_kept_belongs_to_an_object_and_not_to_a_module():
    found = {f"{_dotted(path)}.{name}" for path in MODULES for name in remembered(nodes(path))}
    assert found == REMEMBERED.keys()


@pytest.mark.parametrize(
    "source",
    [
        "kept: dict[str, str] = {}\ndef keep(uri): kept[uri] = uri",
        "kept = []\ndef keep(uri): kept.append(uri)",
        "kept = None\ndef keep(uri):\n    global kept\n    kept = uri",
        "import threading\nkept = threading.local()",
        "from functools import cache\n@cache\ndef kept(uri): return open(uri)",
        "import functools\n@functools.lru_cache(maxsize=1)\ndef kept(connection): return connection.cursor()",
    ],
)
def test_what_a_module_keeps_is_seen(source: str):
    assert remembered([*ast.walk(ast.parse(source))]) == {"kept"}


def test_a_basename_stands_twice_only_for_the_two_sides_of_one_thing():
    names = [path.stem for path in MODULES if path.stem != "__init__"]
    assert {name for name in names if names.count(name) > 1} <= TWO_SIDES


def test_only_the_graph_and_the_command_import_dagster():
    others = [path for path in MODULES if part(path) not in DAGSTER_SIDE]
    assert [named(path) for path in others if any(name.startswith("dagster") for name in imported(path))] == []


def test_a_module_says_what_belongs_there_and_stays_short():
    texts = {named(path): path.read_text(encoding="utf-8") for path in MODULES}
    trees = {named(path): nodes(path)[0] for path in MODULES}
    silent = [name for name, tree in trees.items() if texts[name].strip() and not ast.get_docstring(tree)]  # type: ignore[arg-type]
    assert silent == [], "a module opens with a docstring"
    assert [name for name, text in texts.items() if len(text.splitlines()) > LONGEST] == []


PRIVATE = {
    # The base class of the storage plug-in: Dagster documents the place in `dagster.yaml`, and exports no base class.
    "defs/event_log.py": {"dagster._core.storage.event_log.sqlite"},
}
"""What our modules take from private modules of others, and why. Nothing comes in; what goes leaves this list."""


def private_imports(path: Path) -> set[str]:
    """Modules of other packages that a file takes something private from: `a._b`, or `_c` of `a.b` as `a.b._c`."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = _is_private(node.module)
            names = [node.module] if inside else [f"{node.module}.{name.name}" for name in node.names]
        else:
            continue
        found |= {name for name in names if _is_private(name) and name.split(".")[0] not in OURS}
    return found


def _is_private(name: str) -> bool:
    """Whether a part of a dotted name begins with one underscore; `__future__` and its kind belong to Python."""
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


OURS = ("dicom_assets", "bench", "fuzz", "deploy")
REPOSITORY = ROOT.parent


def test_nothing_is_taken_from_private_modules_of_others_but_what_is_listed():
    paths = {
        path.relative_to(REPOSITORY).as_posix(): path for part in OURS for path in (REPOSITORY / part).rglob("*.py")
    }
    found = {name: taken for name, path in paths.items() if (taken := private_imports(path))}
    assert found == {f"dicom_assets/{name}": taken for name, taken in PRIVATE.items()}


@pytest.mark.parametrize(
    ("code", "private"),
    [
        ("from deltalake._internal import RemoveAction", {"deltalake._internal"}),
        ("import pydicom._dicom_dict as tags", {"pydicom._dicom_dict"}),
        ("def f():\n    from concurrent.futures import _base, wait", {"concurrent.futures._base"}),
        ("from __future__ import annotations\nfrom dicom_assets.lake.delta import _Open\nimport os.path", set()),
    ],
)
def test_private_imports_are_found_wherever_they_stand(code: str, private: set[str], tmp_path: Path):
    (tmp_path / "one.py").write_text(code)
    assert private_imports(tmp_path / "one.py") == private


def test_nothing_of_the_graph_has_hints_that_dagster_cannot_read():
    late = "from __future__ import annotations"
    assert [named(path) for path in MODULES if part(path) == "defs" and late in path.read_text(encoding="utf-8")] == []


def _constants() -> Iterator[tuple[str, str]]:
    """Every string in the code but docstrings, with its module."""
    for path in MODULES:
        if named(path) == "schema/codes.py":
            continue
        told = {
            id(node.body[0].value)
            for node in nodes(path)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in nodes(path):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
                yield named(path), node.value


_CODE = re.compile(r"[A-Z]{2,}(?:_[A-Z]{2,})+")
_NO_CODES = re.compile(r"(DICOM_ASSETS|DAGSTER|AZURE|PG|ORTHANC|ARROW|OPENBLAS)_[A-Z_]+")
"""Names of environment variables look the same."""


def test_every_reason_code_is_used_somewhere():
    spoken = "\n".join(text for _, text in _constants())
    words = set(re.findall(r"\w+", spoken))
    assert sorted(set(CODES) - words) == []


def test_every_code_that_is_raised_or_settled_is_registered():
    """A code is the first string that an error with a code, or a verdict, is made from."""
    found: dict[str, set[str]] = {}
    for path in MODULES:
        for node in nodes(path):
            if not isinstance(node, ast.Call) or named(path) == "schema/codes.py":
                continue
            for argument in node.args[:2]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    text = argument.value
                    if _CODE.fullmatch(text) and not _NO_CODES.fullmatch(text):
                        found.setdefault(text, set()).add(named(path))
    assert {text: places for text, places in found.items() if text not in CODES} == {}
    assert len(found) > 10


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_every_table_and_column_is_described(table):
    assert table.grain
    assert table.description.endswith(".")
    assert [column.name for column in table.columns if not column.description] == []
    for name in table.upstream:
        assert name in TABLES
    for column in table.columns:
        for source, field in column.sources:
            assert field in TABLES[source], f"{table.name}.{column.name} comes from nowhere"


@pytest.mark.parametrize("code", CODES.values(), ids=lambda code: code.name)
def test_every_reason_code_says_what_it_means_and_what_to_do(code):
    assert code.meaning.endswith(".")
    assert code.remedy.endswith(".")


def test_what_a_reading_process_runs_imports_neither_dagster_nor_table_engines_nor_pandas():
    code = (
        "import sys\n"
        "from dicom_assets.reading import judge, listing, worker\n"
        "sys.exit(', '.join(sorted({'dagster', 'deltalake', 'duckdb', 'pandas'} & sys.modules.keys())) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
