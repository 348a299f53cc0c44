"""Renders the manifests of a deployment from a values file, one module per component. Pure."""
