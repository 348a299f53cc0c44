"""Pods as values: templates, overrides, names, verdicts and their causes.

Pure: nothing here waits, reads a file or sends a request.
"""
