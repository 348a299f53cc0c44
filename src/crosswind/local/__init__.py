"""The one-machine cluster: store, API, pod lifecycle, process kubelet, injectors, serving."""
