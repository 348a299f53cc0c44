"""``make chaos``: faults, and what becomes of the tasks."""
