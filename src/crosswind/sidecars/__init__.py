"""Sidecars: how each product is recognised and ended, and what ends it (shutdown, reaper, wrapper)."""
