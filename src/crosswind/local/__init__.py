"""The former home of the one-machine cluster, now the package ``kubelocal``. Removed in the next release."""
