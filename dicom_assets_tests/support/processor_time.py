"""What a test costs: processor time of this process and of those that it has waited for, however busy the machine is.

Belongs here: the plug-in that names tests that should be marked `slow` and are not. Does not belong here: what the rule
is (CONTRIBUTING.md).
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest

BOUND_SECONDS = 3.0
"""A test that takes longer is named. The rule says two seconds; a busy machine makes the same work dearer."""
_PROPERTY = "processor_seconds"


def spent() -> float:
    """Seconds of processor time until now, processes that have ended and were waited for included."""
    return sum(os.times()[:4])


class ProcessorTime:
    """Measures each test with what it makes for itself, and names the dear ones in the end.

    What is made once for a module or a session is nobody's own.
    """

    def __init__(self) -> None:
        self._begun = 0.0
        self._shared = 0.0
        self._depth = 0

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Begins to measure."""
        self._begun, self._shared = spent(), 0.0
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        """Leaves out what others use as well."""
        if fixturedef.scope == "function" or self._depth:
            return (yield)
        before = spent()
        self._depth += 1
        try:
            return (yield)
        finally:
            self._depth -= 1
            self._shared += spent() - before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Tells the report, which comes to whoever prints it, from other processes too."""
        try:
            return (yield)
        finally:
            seconds = spent() - self._begun - self._shared
            if seconds > BOUND_SECONDS and item.get_closest_marker("slow") is None:
                item.user_properties.append((_PROPERTY, round(seconds, 1)))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Names them, the dearest first."""
        found = [
            (seconds, report.nodeid)
            for report in terminalreporter.getreports("passed")
            for name, seconds in report.user_properties
            if report.when == "call" and name == _PROPERTY
        ]
        if found:
            terminalreporter.section(f"more than {BOUND_SECONDS:.0f} s of processor time, and not marked slow")
            for seconds, test in sorted(found, reverse=True):
                terminalreporter.write_line(f"{seconds:6.1f} s  {test}")
