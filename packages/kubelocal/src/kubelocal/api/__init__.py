"""The API server over HTTP: discovery, content negotiation, ``kubectl get`` tables, watches, streams into pods."""
