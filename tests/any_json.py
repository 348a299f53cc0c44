"""Strategies for JSON that resembles a pod: the names of a pod's fields, with values of every type."""

from __future__ import annotations

from hypothesis import strategies as st

__all__ = ["any_pod", "items"]

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
_words = st.sampled_from(
    [
        "base",
        "istio-proxy",
        "crosswind-xcom",
        "Failed",
        "Running",
        "Pending",
        "Always",
        "Evicted",
        "ErrImagePull",
        "OOMKilled",
        "True",
        "2026-01-01T00:00:00Z",
        "proxyv2:1.26.4",
    ]
)
_state = st.dictionaries(
    st.sampled_from(["waiting", "running", "terminated"]),
    _json
    | st.dictionaries(st.sampled_from(["reason", "message", "exitCode", "finishedAt"]), _json | _words, max_size=3),
    max_size=2,
)
_item_fields = st.sampled_from(
    [
        "name",
        "image",
        "state",
        "lastState",
        "restartPolicy",
        "type",
        "status",
        "reason",
        "restartCount",
        "resources",
        "command",
        "args",
        "env",
        "volumeMounts",
        "kind",
        "controller",
    ]
)
items = st.lists(st.dictionaries(_item_fields, _state | _words | _json, max_size=5) | _json, max_size=3)
"""Containers, statuses, conditions or events."""

_part = st.dictionaries(
    st.sampled_from(
        [
            "containers",
            "initContainers",
            "containerStatuses",
            "initContainerStatuses",
            "ephemeralContainerStatuses",
            "conditions",
            "phase",
            "reason",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "terminationGracePeriodSeconds",
            "creationTimestamp",
            "restartPolicy",
            "message",
            "name",
            "labels",
            "annotations",
            "ownerReferences",
            "volumes",
        ]
    ),
    items | _words | _json | st.dictionaries(_words | st.just("sidecar.istio.io/status"), _json | _words, max_size=2),
    max_size=6,
)
any_pod = st.dictionaries(st.sampled_from(["metadata", "spec", "status"]), _part | _json, max_size=3) | _json
"""A pod, or any other JSON."""
