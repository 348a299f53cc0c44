"""Simulated nodes: pods that pass through the stages of a life without processes."""
