"""Sidecar injection as the real webhooks do it, and the programs that run in the sidecars."""
