"""Pods as values: templates, overrides, names, verdicts, sidecars. Pure: nothing here waits, reads a file or talks to anyone."""
