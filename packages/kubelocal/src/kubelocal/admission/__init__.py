"""Admission plug-ins: what changes or refuses a new object before the registry validates it."""
