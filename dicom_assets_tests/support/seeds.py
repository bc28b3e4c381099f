"""Seeds for tests of which one example is a whole lake: few examples, each large.

Belongs here: the seeds. Does not belong here: what is drawn with them; each test says so with a `random.Random`.
"""

from __future__ import annotations

from hypothesis import strategies as st


def seeds() -> st.SearchStrategy[int]:
    """Seeds of examples: the same ones in CI, others in each run elsewhere; a failure names its seed.

    Hypothesis begins with the simplest value there is, also where one example is all: a lake with next to nothing in
    it. So a test draws a seed, and never that value.
    """
    return st.integers(0, 2**32).filter(bool)
