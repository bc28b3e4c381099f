"""What Dagster is told when something of ours fails: sentences of ours, never the text of an exception.

Belongs here: the way out of every step, check, sensor, schedule and resource of the graph. Does not belong here: what
an exception may say at all (`faults`), which errors are worth a retry (`reporting.FINAL`).

Dagster keeps an exception's text, its causes and what happened before it in its event log, where patient data has no
place. So what leaves is made anew: an error that says a sentence of ours becomes a failure with that sentence, anything
else one with type and place.
"""

import inspect
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import dagster as dg

from dicom_assets import faults
from dicom_assets.reading.engine import EngineFailed
from dicom_assets.settings import UserError
from dicom_assets.storage.locks import LockBusy

Given = ParamSpec("Given")
Made = TypeVar("Made")

OUR_SENTENCES = (UserError, EngineFailed, LockBusy)
"""Errors whose message is a sentence of ours without patient data."""

IS_CLEAR = "_fails_clearly"
"""Attribute of the functions that fail clearly."""


def clear_failure(error: Exception, final: tuple[type[Exception], ...] = ()) -> dg.Failure:
    """What Dagster is told of an exception; without cause and context.

    final: errors that say our sentences as well, and that no retry mends.
    """
    if isinstance(error, dg.Failure):
        failure = error
    elif isinstance(error, final):
        failure = dg.Failure(str(error), allow_retries=False)
    elif isinstance(error, OUR_SENTENCES):
        failure = dg.Failure(str(error))
    else:
        faults.show(error)
        failure = dg.Failure(faults.sentence(error))
    failure.__cause__ = failure.__context__ = None
    return failure


@contextmanager
def clear_failures(final: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turns every exception of a block into a failure that says nothing but our own sentences: see `clear_failure`.

    Interrupts of a run are no such exceptions and pass as they are.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - told to Dagster
        raise clear_failure(error, final) from None


def fail_clearly(
    final: tuple[type[Exception], ...] = (),
) -> Callable[[Callable[Given, Made]], Callable[Given, Made]]:
    """Lets a function, or a generator, that Dagster calls raise nothing but what `clear_failure` says."""

    def decorated(function: Callable[Given, Made]) -> Callable[Given, Made]:
        if inspect.isgeneratorfunction(function):

            @wraps(function)
            def generated(*given: Given.args, **named: Given.kwargs) -> Generator[Any, Any, Any]:
                try:
                    return (yield from function(*given, **named))  # type: ignore[misc]
                except Exception as error:  # noqa: BLE001 - told to Dagster
                    failure = clear_failure(error, final)
                raise failure  # from here it has no context, which would be what was being handled

            made: Callable[Given, Any] = generated
        else:

            @wraps(function)
            def called(*given: Given.args, **named: Given.kwargs) -> Made:
                try:
                    return function(*given, **named)
                except Exception as error:  # noqa: BLE001 - told to Dagster
                    failure = clear_failure(error, final)
                raise failure

            made = called
        setattr(made, IS_CLEAR, True)
        return made

    return decorated
