"""Removals: everything that a lake holds of a patient, a study, an instance or an object, and how it goes for good.

Belongs here: finding it (`target`), which rows of which table hold it (`row_rules`), the record of an erasure that is
under way (`record`), taking it out (`tables`, `files`), the order of all (`erase`), and the search afterwards
(`search`). Does not belong here: how a table forgets its history (`lake.history`), recognising what comes again
(`landing.refusals`), decoding files (`storage.traces`).
"""
