"""From values to manifests, one module per component. Pure."""
