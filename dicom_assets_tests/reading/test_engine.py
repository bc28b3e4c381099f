"""The reading engine: order, blame, replacement, limits, and no process left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

import psutil
import pytest

from dicom_assets.batch.context import RunContext
from dicom_assets.reading.engine import EngineFailed, ProcessEngine, _Supervisor
from dicom_assets.settings import ReadingLimits, Settings
from dicom_assets_tests.support.misbehaving import (
    chunk,
    crash_at_the_end,
    large,
    modules,
    read,
    readers_imported,
    readers_looked_through,
)


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


@pytest.mark.slow
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
        ((_, (first, _)),) = next(engine.run(read, [chunk(9, 1, o0="who")]))
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
        here = psutil.Process()
        victims = below() - {one.pid for one in here.children()} if sys.platform == "linux" else below()
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):  # one that has ended meanwhile
                os.kill(pid, signal.SIGKILL)
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


def test_reading_does_not_look_for_garbage_among_what_was_imported_before(engine):
    assert list(engine.run(readers_looked_through, [chunk(0)])) == [[]]


def test_a_program_is_not_run_again_by_the_processes_that_it_starts(tmp_path):
    """multiprocessing imports what a program was started as; a command of Dagster would bring Dagster along."""
    program, ran = tmp_path / "program.py", tmp_path / "ran"
    program.write_text(
        "import sys\n"
        f"open({str(ran)!r}, 'a').write('x')\n"
        "from dicom_assets.reading.engine import ProcessEngine\n"
        "from dicom_assets.settings import ReadingLimits\n"
        "from dicom_assets_tests.support.misbehaving import chunk, read\n"
        "if __name__ == '__main__':\n"
        "    with ProcessEngine(ReadingLimits(workers=1)) as engine:\n"
        "        assert len(list(engine.run(read, [chunk(0)]))) == 1\n"
        "    assert __file__ == sys.argv[0]\n"
    )
    done = subprocess.run(
        [sys.executable, str(program)], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert ran.read_text() == "x"


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
    """The processes below this one: those that read, and those of multiprocessing that they are forked from."""
    return {process.pid for process in psutil.Process().children(recursive=True)}


def reading(engine: ProcessEngine) -> set[int]:
    """The processes that read now for an engine."""
    return {pid for result in engine.run(read, [chunk(0, o0="who")]) for _, (pid, _) in result[:1]}


def test_a_small_batch_starts_a_single_process(engine):
    reading(engine)  # what processes are forked from is there
    before = below()
    with ProcessEngine(limits(workers=4)) as own:
        assert len(outcomes(own, [chunk(0)])) == 4
        assert len(below() - before) == 1


def test_processes_that_have_nothing_to_read_end_and_others_read_what_comes_then(engine, monkeypatch):
    monkeypatch.setattr("dicom_assets.reading.engine.IDLE_SECONDS", 0.05)
    reading(engine)
    before = below()
    with ProcessEngine(limits()) as own:
        for _ in range(2):
            assert len(outcomes(own, [chunk(i) for i in range(4)])) == 16
            deadline = time.monotonic() + 10
            while below() - before and time.monotonic() < deadline:
                time.sleep(0.02)
            assert not below() - before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes are not forked")
def test_what_idle_processes_were_forked_from_ends_after_many_chunks_and_others_read_what_comes_then(monkeypatch):
    monkeypatch.setattr("dicom_assets.reading.engine.IDLE_SECONDS", 0.05)
    monkeypatch.setattr("dicom_assets.reading.engine.MANY_CHUNKS", 1)
    with ProcessEngine(limits()) as own:
        (reader,) = reading(own)
        origin = psutil.Process(reader).parent()
        assert origin != psutil.Process()
        deadline = time.monotonic() + 10
        while origin.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.02)
        assert origin.status() == psutil.STATUS_ZOMBIE
        before = below()
        RunContext(Settings(lake=".")).expect_reading()
        (origin,) = below() - before
        (reader,) = reading(own)
        assert psutil.Process(reader).ppid() == origin, "what was begun before there was a chunk"


def test_closing_leaves_no_process_behind_that_reads(engine):
    reading(engine)
    before = below()
    with ProcessEngine(limits()) as own:
        outcomes(own, [chunk(i) for i in range(8)])
        assert below() - before
    assert not below() - before


@pytest.mark.slow
def test_closing_while_processes_have_hardly_begun_leaves_none_behind(engine):
    reading(engine)
    before = below()
    for seconds in (0, 0.02, 0.1):
        with ProcessEngine(limits(object_seconds=20)) as own:
            run = own.run(read, iter([chunk(0, o0="wait"), chunk(1)]))
            consumer = threading.Thread(target=next, args=(run,))
            consumer.start()
            time.sleep(seconds)
            consumer.join()
            run.close()
        assert not below() - before


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
def test_a_lost_process_is_replaced_by_one_that_has_imported_everything():
    with ProcessEngine(limits(workers=1)) as engine:
        found = outcomes(engine, [chunk(0, o0="exit", o1="exit", o2="exit")])
        assert list(found.values()) == ["PARSER_CRASH"] * 3 + ["read"]
        assert list(engine.run(readers_imported, [chunk(1)])) == [["dicom_assets.reading.judge", "pyarrow", "pydicom"]]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
def test_the_end_of_what_processes_are_forked_from_is_blamed_on_no_object():
    with ProcessEngine(limits(object_seconds=20)) as engine:
        origin = {psutil.Process(pid).ppid() for pid in reading(engine)}
        run = engine.run(read, [chunk(2, o1="wait", o2="exit"), chunk(3, o1="wait")])
        for pid in origin:
            threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
        found = {name: outcome for result in run for name, outcome in result}
    assert found.pop("2-2") == "PARSER_CRASH"
    assert len(found) == 7
    assert set(found.values()) == {"read"}


PARENT = """
import os, sys
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets.reading.engine import ProcessEngine
from dicom_assets.settings import ReadingLimits
from dicom_assets_tests.support.misbehaving import chunk, read
import psutil, threading, time
engine = ProcessEngine(ReadingLimits(workers=2, object_seconds=60))
def tell():
    while len(psutil.Process().children(recursive=True)) < int(sys.argv[1]):
        time.sleep(0.05)
    time.sleep(0.5)  # they have begun to read
    print(*[p.pid for p in psutil.Process().children(recursive=True)], flush=True)
threading.Thread(target=tell).start()
list(engine.run(read, [chunk(0, o0="hold"), chunk(1, o0="sleep")]))
"""


@pytest.mark.slow
def test_processes_end_with_a_killed_parent_even_when_they_hang():
    expected = 4 if sys.platform == "linux" else 3  # two that read, and those of multiprocessing
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(expected)], stdout=subprocess.PIPE, text=True)
    children = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(children) == expected
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while any(psutil.pid_exists(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in children)


def test_processes_share_their_progress_where_no_temporary_file_can_be_written(tmp_path, monkeypatch):
    """A file in a full folder could be mapped and not written: whoever did it ended by SIGBUS."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "is not there"))
    with ProcessEngine(ReadingLimits(workers=1)) as engine:
        assert len(outcomes(engine, [chunk(0)])) == 4
