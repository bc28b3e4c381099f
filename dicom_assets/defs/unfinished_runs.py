"""Runs that have not ended: which statuses these are, and taking them out of a state of Dagster that was put back.

Nobody runs those of such a state, and they keep others from it: a sensor asks for a batch once for each run that it
knows of it, and again without these. Does not belong here: runs that broke off where Dagster goes on (`sensors`, run
monitoring).
"""

import dagster as dg

UNDER_WAY = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def forget_unfinished(instance: dg.DagsterInstance) -> int:
    """Takes runs that are under way out of a state that nobody uses; how many."""
    runs = instance.get_runs(dg.RunsFilter(statuses=list(UNDER_WAY)))
    for run in runs:
        instance.delete_run(run.run_id)
    return len(runs)
