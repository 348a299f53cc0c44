"""Pods as values: templates, overrides, names, verdicts, causes, sidecars.

Pure: nothing here waits, reads a file or talks to anyone.
"""
