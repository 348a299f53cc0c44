"""The kubelet of the one-machine cluster: pods as processes of this machine."""

from crosswind.local.kubelet.network import Network, open_network
from crosswind.local.kubelet.node import Kubelet

__all__ = ["Kubelet", "Network", "open_network"]
