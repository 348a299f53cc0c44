"""A Kubernetes cluster on one machine: the API, a scheduler, the controllers and a kubelet that runs pods as processes.

``kubelocal.cluster.LocalCluster`` serves one from Python, ``kubelocal up`` from a shell, and the pytest fixtures of
``kubelocal.testing`` from tests.
"""
