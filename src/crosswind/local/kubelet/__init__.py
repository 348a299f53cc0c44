"""The kubelet of the one-machine cluster: pods as processes of this machine."""

from crosswind.local.kubelet.node import Kubelet

__all__ = ["Kubelet"]
