"""pydicom held silent: no validation of what it reads, no warnings and no log records, all of which may quote values.

Belongs here: the one way to hold it silent. Does not belong here: what is read with it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lenient() -> Iterator[None]:
    """Makes pydicom read without validation, warnings or log records, then as it was.

    Values are converted when they are looked at, not when their object is read: both have to stand within. Python's
    warnings belong to the process: two threads must not stand within at once.
    """
    from pydicom import config  # here: most commands read no object

    logger = logging.getLogger("pydicom")
    mode, disabled = config.settings.reading_validation_mode, logger.disabled
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config.settings.reading_validation_mode = config.IGNORE
        logger.disabled = True
        try:
            yield
        finally:
            config.settings.reading_validation_mode = mode
            logger.disabled = disabled
