"""The reading engine: order, blame, replacement, limits, and no process left behind."""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field

import psutil
import pytest

from dicom_assets.reading.engine import EngineFailed, InlineEngine, ProcessEngine, _Supervisor
from dicom_assets.reading.nursery import IS_POSSIBLE
from dicom_assets.reading.readers import Readers
from dicom_assets.reading.worker import Preparing, prepare
from dicom_assets.settings import ReadingLimits


@dataclass
class Thing:
    object_id: str
    act: str = "read"


@dataclass(frozen=True)
class Things:
    objects: list[Thing]
    poison: dict[str, str] = field(default_factory=dict)


def read(chunk, beat):
    """Stands for the judge: returns (object_id, outcome) and misbehaves where an object says so."""
    outcomes = []
    for index, thing in enumerate(chunk.objects):
        beat(index)
        if thing.object_id in chunk.poison:
            outcomes.append((thing.object_id, chunk.poison[thing.object_id]))
            continue
        act = thing.act
        if act.startswith("once "):  # misbehaves in the first process alone
            _, act, mark = act.split(" ", 2)
            if seen_before(mark):
                act = "read"
        elif act.startswith("kill "):  # its process is killed so many times
            _, times, mark = act.split(" ", 2)
            act = "killed" if seen_before(mark) < int(times) else "read"
        match act:
            case "crash":
                ctypes.string_at(0)
            case "exit":
                os._exit(3)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                while True:
                    pass
            case "sleep":
                time.sleep(60)
            case "wait":
                time.sleep(1)
            case "grow":
                held = []
                while True:
                    held.append(bytearray(32 << 20))
            case "fault":
                raise ValueError("DOE^JANE")
            case "who":
                outcomes.append((thing.object_id, (os.getpid(), len(chunk.objects))))
                continue
            case "print":
                print("DOE^JANE")
        outcomes.append((thing.object_id, "read"))
    return outcomes


def seen_before(mark):
    """How often an object was begun before; one more from now on."""
    with open(mark, "a+") as file:
        file.seek(0)
        times = len(file.read())
        file.write("x")
    return times


def modules(chunk, beat):
    return sorted(set(sys.modules) & {"dagster", "duckdb", "deltalake"})


def heavy_modules(chunk, beat):
    return sorted(set(sys.modules) & {"pandas", "PIL", "requests", "pyarrow", "pydicom"})


def crash_at_the_end(chunk, beat):
    beat(len(chunk.objects))
    os._exit(1)


def large(chunk, beat):
    return b"x" * (8 << 20)


def chunk(number, size=4, **acts):
    return Things([Thing(f"{number}-{i}", acts.get(f"o{i}", "read")) for i in range(size)])


def limits(**values):
    return ReadingLimits(**{"workers": 2, "object_seconds": 1.0, **values})


@pytest.fixture(scope="module")
def engine():
    with ProcessEngine(limits()) as engine:
        yield engine


def outcomes(engine, chunks):
    return {name: outcome for result in engine.run(read, chunks) for name, outcome in result}


def test_results_come_in_the_order_of_the_chunks(engine):
    chunks = [chunk(i) for i in range(20)]
    assert [result[0][0] for result in engine.run(read, iter(chunks))] == [f"{i}-0" for i in range(20)]


@pytest.mark.parametrize(
    ("act", "code"),
    [
        ("crash", "PARSER_CRASH"),
        ("exit", "PARSER_CRASH"),
        ("hang", "PARSER_TIMEOUT"),
        ("sleep", "PARSER_TIMEOUT"),
    ],
)
def test_an_object_that_ends_its_process_is_blamed_and_nothing_else_is_lost(engine, act, code):
    found = outcomes(engine, [chunk(i, o2=act) if i == 3 else chunk(i) for i in range(8)])
    assert found.pop("3-2") == code
    assert len(found) == 31
    assert set(found.values()) == {"read"}


def test_an_object_that_grows_beyond_the_limit_is_blamed():
    with ProcessEngine(limits(workers=1, worker_memory_bytes=2**28, object_seconds=20)) as engine:
        found = outcomes(engine, [chunk(0, o1="grow"), chunk(1)])
    assert found.pop("0-1") == "PARSER_CRASH"
    assert set(found.values()) == {"read"}


def test_several_bad_objects_in_one_chunk_are_blamed_one_by_one(engine):
    found = outcomes(engine, [chunk(0, o0="exit", o1="crash", o3="hang")])
    assert found == {"0-0": "PARSER_CRASH", "0-1": "PARSER_CRASH", "0-2": "read", "0-3": "PARSER_TIMEOUT"}


@pytest.mark.parametrize("what", ["crash", "hang", "killed", "grow"])
def test_an_object_whose_process_ended_once_is_read_again_alone_and_not_blamed(tmp_path, what):
    with ProcessEngine(limits(worker_memory_bytes=2**28)) as engine:
        found = outcomes(engine, [chunk(0, o1=f"once {what} {tmp_path / 'mark'}"), chunk(1)])
    assert (tmp_path / "mark").exists()
    assert found == {f"{number}-{i}": "read" for number in range(2) for i in range(4)}


def test_what_is_read_again_is_alone_in_a_process_that_has_read_nothing(tmp_path):
    with ProcessEngine(limits(workers=1)) as engine:
        list(engine.run(prepare, [Preparing(__name__)]))
        ((_, (first, _)),) = next(engine.run(read, [Things([Thing("a", "who")])]))
        parts = [*engine.run(read, [chunk(0, o0="who", o1=f"once killed {tmp_path / 'mark'}", o2="who"), chunk(1)])]
    assert [[name for name, _ in part] for part in parts] == [
        ["0-0"], ["0-1"], ["0-2", "0-3"], ["1-0", "1-1", "1-2", "1-3"]
    ]  # fmt: skip
    before, after = parts[0][0][1], parts[2][0][1]
    assert before[1] == 1
    assert len({first, before[0], after[0]}) == 3, "the process that read before it has not read it alone, too"


@pytest.mark.parametrize(("killed", "outcome"), [(2, "read"), (3, "READER_KILLED")])
def test_an_object_whose_processes_somebody_else_kills_has_three_tries_and_is_not_called_bad(
    engine, tmp_path, killed, outcome
):
    found = outcomes(engine, [chunk(i, o1=f"kill {killed} {tmp_path / 'mark'}") if i == 2 else chunk(i)
                              for i in range(6)])  # fmt: skip
    assert found.pop("2-1") == outcome
    assert len((tmp_path / "mark").read_text()) == 3
    assert set(found.values()) == {"read"}
    assert len(found) == 23


def test_a_reading_process_that_is_killed_from_outside_costs_no_object():
    with ProcessEngine(limits(object_seconds=20)) as engine:
        run = engine.run(read, [chunk(i, o1="wait") for i in range(4)])
        first = next(run)
        origins = psutil.Process().children()
        victims = [one for origin in origins for one in origin.children()] if IS_POSSIBLE else origins
        for process in victims:
            process.kill()
        found = {name: outcome for result in [first, *run] for name, outcome in result}
    assert victims
    assert found == {f"{number}-{i}": "read" for number in range(4) for i in range(4)}


def test_a_fault_of_the_function_fails_the_run_and_quotes_no_object(engine):
    with pytest.raises(EngineFailed) as error:
        outcomes(engine, [chunk(0, o1="fault")])
    assert "ValueError in read" in str(error.value)
    assert "DOE" not in str(error.value)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_the_engine_itself_fails_the_run_instead_of_hanging(engine, monkeypatch):
    def broken(self):
        raise TypeError

    monkeypatch.setattr(_Supervisor, "_watch", broken)
    with pytest.raises(EngineFailed, match="has broken off"):
        outcomes(engine, [chunk(0)])


def test_the_engine_works_again_after_a_failed_run(engine):
    assert len(outcomes(engine, [chunk(0)])) == 4


def test_a_process_that_ends_outside_any_object_fails_the_run_instead_of_looping(engine):
    with pytest.raises(EngineFailed, match="outside any object"):
        list(engine.run(crash_at_the_end, [chunk(0)]))


def test_what_an_object_makes_a_library_print_goes_nowhere(engine, capfd):
    assert outcomes(engine, [chunk(0, o1="print")])["0-1"] == "read"
    assert "DOE" not in "".join(capfd.readouterr())


def test_results_larger_than_a_pipe_arrive_whole(engine):
    assert [len(result) for result in engine.run(large, [chunk(i) for i in range(4)])] == [8 << 20] * 4


def test_reading_processes_hold_neither_dagster_nor_a_table_engine(engine):
    assert list(engine.run(modules, [chunk(0)])) == [[]]


def test_what_reads_headers_is_imported_without_images_and_downloads():
    with ProcessEngine(limits(workers=1)) as own:
        list(own.run(prepare, [Preparing("dicom_assets.reading.judge")]))
        (held,) = own.run(heavy_modules, [chunk(0)])
    assert held == ["pyarrow", "pydicom"]


def test_no_more_chunks_are_taken_than_may_be_on_the_way(engine):
    taken = []

    def source():
        for i in range(50):
            taken.append(i)
            yield chunk(i)

    run = engine.run(read, source())
    next(run)
    assert len(taken) <= 7
    run.close()


def below() -> set[int]:
    """The processes below this one: those that read, and those that they were forked from."""
    return {process.pid for process in psutil.Process().children(recursive=True)}


def test_a_small_batch_starts_a_single_process():
    before = below()
    with ProcessEngine(limits(workers=4)) as engine:
        assert len(outcomes(engine, [chunk(0)])) == 4
        assert len(below() - before) <= 2  # one that reads, and its origin


def test_closing_leaves_no_process_behind():
    before = below()
    with ProcessEngine(limits()) as engine:
        outcomes(engine, [chunk(i) for i in range(8)])
        assert below() - before
    assert not below() - before


def test_closing_while_processes_have_hardly_begun_leaves_none_behind():
    before = below()
    for seconds in (0, 0.02, 0.1, 0.3):
        with Readers(limits()):
            time.sleep(seconds)
        assert not below() - before


def test_a_lost_process_is_replaced_by_one_that_has_imported_everything():
    with ProcessEngine(limits(workers=1)) as engine:
        list(engine.run(prepare, [Preparing("dicom_assets.reading.judge")]))
        found = outcomes(engine, [chunk(0, o0="exit", o1="exit", o2="exit")])
        assert list(found.values()) == ["PARSER_CRASH"] * 3 + ["read"]
        if IS_POSSIBLE:
            assert list(engine.run(heavy_modules, [chunk(1)])) == [["pyarrow", "pydicom"]]


@pytest.mark.skipif(not IS_POSSIBLE, reason="processes are forked on Linux alone")
def test_the_end_of_what_processes_are_forked_from_is_blamed_on_no_object():
    before = below()
    with ProcessEngine(limits(object_seconds=20)) as engine:
        outcomes(engine, [chunk(0), chunk(1)])
        (origin,) = {process.pid for process in psutil.Process().children()} - before
        run = engine.run(read, [chunk(2, o1="wait"), chunk(3, o1="wait")])
        threading.Timer(0.5, os.kill, (origin, signal.SIGKILL)).start()
        found = {name: outcome for result in run for name, outcome in result}
    assert len(found) == 8
    assert set(found.values()) == {"read"}
    assert not below() - before


PARENT = """
import os, sys
from dicom_assets_tests.reading.test_engine import ProcessEngine, chunk, limits, read
import psutil, threading, time
engine = ProcessEngine(limits(object_seconds=60))
def tell():
    time.sleep(1.5)
    print(*[p.pid for p in psutil.Process().children(recursive=True)], flush=True)
threading.Thread(target=tell).start()
list(engine.run(read, [chunk(0, o0="hang"), chunk(1, o0="sleep")]))
"""


def test_processes_end_with_a_killed_parent_even_when_they_hang():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    children = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(children) == (3 if IS_POSSIBLE else 2)  # those that read, and what they were forked from
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while any(psutil.pid_exists(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in children)


def test_inline_runs_the_same_function_here():
    assert [len(result) for result in InlineEngine().run(read, [chunk(0), chunk(1)])] == [4, 4]


def test_processes_share_their_progress_where_no_temporary_file_can_be_written(tmp_path, monkeypatch):
    """A file in a full folder could be mapped and not written: whoever did it ended by SIGBUS."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "is not there"))
    with ProcessEngine(ReadingLimits(workers=1)) as engine:
        (answer,) = engine.run(prepare, [Preparing("json")])
    assert answer is None
