"""Admission plug-ins, which change or refuse a new object before the registry validates it."""
