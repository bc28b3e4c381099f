"""Who looks after a lake without looking at it: its numbers, its alerts, where its data come from."""
