"""``make chaos``: faults, and their effect on the tasks."""
