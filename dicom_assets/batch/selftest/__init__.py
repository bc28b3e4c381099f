"""A deployment sends a known set through itself and looks whether it arrives: the end-to-end validation.

Belongs here: the set, its delivery, what is compared stage by stage, and taking all of it out again. Does not belong
here: what runs meanwhile (Dagster, which this package only waits for), single rights (`batch.reach`).
"""
