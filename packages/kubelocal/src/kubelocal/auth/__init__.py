"""Authentication and authorization: bearer tokens, certificates, RBAC, kubeconfigs."""
