"""The field names of a pod that checks and messages know, as Kubernetes 1.36 has them.

They serve to find misspellings only: a name that is merely unknown may come from a newer Kubernetes and passes.
"""

from __future__ import annotations

from difflib import get_close_matches

__all__ = ["CONTAINER_FIELDS", "METADATA_FIELDS", "POD_FIELDS", "SERVER_METADATA", "SPEC_FIELDS", "meant"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


POD_FIELDS = _words("apiVersion kind metadata spec status")

SERVER_METADATA = _words(
    """
    creationTimestamp deletionGracePeriodSeconds deletionTimestamp generation managedFields resourceVersion selfLink uid
    """
)
"""Fields of ``metadata`` that belong to the API server; a create that carries them is refused or fails."""

METADATA_FIELDS = SERVER_METADATA | _words("annotations finalizers generateName labels name namespace ownerReferences")

SPEC_FIELDS = _words(
    """
    activeDeadlineSeconds affinity automountServiceAccountToken containers dnsConfig dnsPolicy enableServiceLinks
    ephemeralContainers hostAliases hostIPC hostNetwork hostPID hostUsers hostname hostnameOverride imagePullSecrets
    initContainers nodeName nodeSelector os overhead preemptionPolicy priority priorityClassName readinessGates
    resourceClaims resources restartPolicy runtimeClassName schedulerName schedulingGates schedulingGroup
    securityContext serviceAccount serviceAccountName setHostnameAsFQDN shareProcessNamespace subdomain
    terminationGracePeriodSeconds tolerations topologySpreadConstraints volumes
    """
)

CONTAINER_FIELDS = _words(
    """
    args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports readinessProbe resizePolicy
    resources restartPolicy restartPolicyRules securityContext startupProbe stdin stdinOnce terminationMessagePath
    terminationMessagePolicy tty volumeDevices volumeMounts workingDir
    """
)


def meant(name: str, known: frozenset[str]) -> str | None:
    """Return the known field that ``name`` misspells, None when it is known or resembles none."""
    if name in known:
        return None
    folded = {field.lower(): field for field in known}
    close = get_close_matches(name.replace("_", "").lower(), folded, n=1, cutoff=0.85)
    return folded[close[0]] if close else None
