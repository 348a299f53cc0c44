"""The kubelet of the one-machine cluster: pods as processes of this machine."""

from kubelocal.kubelet.node_agent import Kubelet
from kubelocal.kubelet.pod_network import Network, open_network
from kubelocal.kubelet.runtimes import NodeRuntimes

__all__ = ["Kubelet", "Network", "NodeRuntimes", "open_network"]
