"""Checks fragments of a Pod, such as a variable or a volume, by the types that Kubernetes gives their fields.

People write such fragments into files of ours, and the API server would be the first to read them: it refuses numbers
that should be text, and our own code expects the fields that it requires. The table is Kubernetes 1.37's. A field that
is merely unknown passes, because it may come from a newer Kubernetes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import date

from crosswind.documents import FieldPath, FieldProblem
from crosswind.pods.shape import corrected_spelling
from crosswind.types import Json

__all__ = ["FIELD_TYPES", "fragment_problems", "is_quantity", "without_nulls"]

_TABLE = """
    EnvVar = name! value valueFrom:EnvVarSource
    Volume = awsElasticBlockStore:AWSElasticBlockStoreVolumeSource azureDisk:AzureDiskVolumeSource
        azureFile:AzureFileVolumeSource cephfs:CephFSVolumeSource cinder:CinderVolumeSource
        configMap:ConfigMapVolumeSource csi:CSIVolumeSource downwardAPI:DownwardAPIVolumeSource
        emptyDir:EmptyDirVolumeSource ephemeral:EphemeralVolumeSource fc:FCVolumeSource flexVolume:FlexVolumeSource
        flocker:FlockerVolumeSource gcePersistentDisk:GCEPersistentDiskVolumeSource gitRepo:GitRepoVolumeSource
        glusterfs:GlusterfsVolumeSource hostPath:HostPathVolumeSource image:ImageVolumeSource
        iscsi:ISCSIVolumeSource name! nfs:NFSVolumeSource persistentVolumeClaim:PersistentVolumeClaimVolumeSource
        photonPersistentDisk:PhotonPersistentDiskVolumeSource portworxVolume:PortworxVolumeSource
        projected:ProjectedVolumeSource quobyte:QuobyteVolumeSource rbd:RBDVolumeSource scaleIO:ScaleIOVolumeSource
        secret:SecretVolumeSource storageos:StorageOSVolumeSource vsphereVolume:VsphereVirtualDiskVolumeSource
    VolumeMount = bindMountOptions:texts mountPath! mountPropagation name! readOnly:bool recursiveReadOnly subPath
        subPathExpr
    Toleration = effect key operator tolerationSeconds:int value
    ResourceRequirements = claims:[ResourceClaim] limits:quantities requests:quantities
    Affinity = nodeAffinity:NodeAffinity podAffinity:PodAffinity podAntiAffinity:PodAntiAffinity
    EnvVarSource = configMapKeyRef:ConfigMapKeySelector fieldRef:ObjectFieldSelector fileKeyRef:FileKeySelector
        resourceFieldRef:ResourceFieldSelector secretKeyRef:SecretKeySelector
    AWSElasticBlockStoreVolumeSource = fsType partition:int readOnly:bool volumeID!
    AzureDiskVolumeSource = cachingMode diskName! diskURI! fsType kind readOnly:bool
    AzureFileVolumeSource = readOnly:bool secretName! shareName!
    CephFSVolumeSource = monitors!:texts path readOnly:bool secretFile secretRef:LocalObjectReference user
    CinderVolumeSource = fsType readOnly:bool secretRef:LocalObjectReference volumeID!
    ConfigMapVolumeSource = defaultMode:int defaultUser:int items:[KeyToPath] name! optional:bool
    CSIVolumeSource = driver! fsType nodePublishSecretRef:LocalObjectReference readOnly:bool volumeAttributes:map
    DownwardAPIVolumeSource = defaultMode:int defaultUser:int items:[DownwardAPIVolumeFile]
    EmptyDirVolumeSource = medium mode:int sizeLimit:quantity
    EphemeralVolumeSource = volumeClaimTemplate:PersistentVolumeClaimTemplate
    FCVolumeSource = fsType lun:int readOnly:bool targetWWNs:texts wwids:texts
    FlexVolumeSource = driver! fsType options:map readOnly:bool secretRef:LocalObjectReference
    FlockerVolumeSource = datasetName datasetUUID
    GCEPersistentDiskVolumeSource = fsType partition:int pdName! readOnly:bool
    GitRepoVolumeSource = directory repository! revision
    GlusterfsVolumeSource = endpoints! path! readOnly:bool
    HostPathVolumeSource = path! type
    ImageVolumeSource = pullPolicy reference
    ISCSIVolumeSource = chapAuthDiscovery:bool chapAuthSession:bool fsType initiatorName iqn! iscsiInterface lun:int
        portals:texts readOnly:bool secretRef:LocalObjectReference targetPortal!
    NFSVolumeSource = path! readOnly:bool server!
    PersistentVolumeClaimVolumeSource = claimName! readOnly:bool
    PhotonPersistentDiskVolumeSource = fsType pdID!
    PortworxVolumeSource = fsType readOnly:bool volumeID!
    ProjectedVolumeSource = defaultMode:int defaultUser:int sources:[VolumeProjection]
    QuobyteVolumeSource = group readOnly:bool registry! tenant user volume!
    RBDVolumeSource = fsType image! keyring monitors!:texts pool readOnly:bool secretRef:LocalObjectReference user
    ScaleIOVolumeSource = fsType gateway! protectionDomain readOnly:bool secretRef!:LocalObjectReference
        sslEnabled:bool storageMode storagePool system! volumeName
    SecretVolumeSource = defaultMode:int defaultUser:int items:[KeyToPath] optional:bool secretName!
    StorageOSVolumeSource = fsType readOnly:bool secretRef:LocalObjectReference volumeName volumeNamespace
    VsphereVirtualDiskVolumeSource = fsType storagePolicyID storagePolicyName volumePath!
    ResourceClaim = name! request
    NodeAffinity = preferredDuringSchedulingIgnoredDuringExecution:[PreferredSchedulingTerm]
        requiredDuringSchedulingIgnoredDuringExecution:NodeSelector
    PodAffinity = preferredDuringSchedulingIgnoredDuringExecution:[WeightedPodAffinityTerm]
        requiredDuringSchedulingIgnoredDuringExecution:[PodAffinityTerm]
    PodAntiAffinity = preferredDuringSchedulingIgnoredDuringExecution:[WeightedPodAffinityTerm]
        requiredDuringSchedulingIgnoredDuringExecution:[PodAffinityTerm]
    ConfigMapKeySelector = key! name! optional:bool
    ObjectFieldSelector = apiVersion fieldPath!
    FileKeySelector = key! optional:bool path! volumeName!
    ResourceFieldSelector = containerName divisor:quantity resource!
    SecretKeySelector = key! name! optional:bool
    LocalObjectReference = name
    KeyToPath = key! mode:int path! user:int
    DownwardAPIVolumeFile = fieldRef:ObjectFieldSelector mode:int path! resourceFieldRef:ResourceFieldSelector
        user:int
    PersistentVolumeClaimTemplate = metadata:ObjectMeta spec!:PersistentVolumeClaimSpec
    VolumeProjection = clusterTrustBundle:ClusterTrustBundleProjection configMap:ConfigMapProjection
        downwardAPI:DownwardAPIProjection podCertificate:PodCertificateProjection secret:SecretProjection
        serviceAccountToken:ServiceAccountTokenProjection
    PreferredSchedulingTerm = preference!:NodeSelectorTerm weight!:int
    NodeSelector = nodeSelectorTerms!:[NodeSelectorTerm]
    WeightedPodAffinityTerm = podAffinityTerm!:PodAffinityTerm weight!:int
    PodAffinityTerm = labelSelector:LabelSelector matchLabelKeys:texts mismatchLabelKeys:texts
        namespaceSelector:LabelSelector namespaces:texts topologyKey!
    ObjectMeta = annotations:map creationTimestamp deletionGracePeriodSeconds:int deletionTimestamp finalizers:texts
        generateName generation:int labels:map managedFields:any name namespace ownerReferences:any resourceVersion
        selfLink uid
    PersistentVolumeClaimSpec = accessModes:texts dataSource:TypedLocalObjectReference
        dataSourceRef:TypedObjectReference resources:VolumeResourceRequirements selector:LabelSelector
        storageClassName volumeAttributesClassName volumeMode volumeName
    ClusterTrustBundleProjection = labelSelector:LabelSelector name optional:bool path! signerName user:int
    ConfigMapProjection = items:[KeyToPath] name! optional:bool
    DownwardAPIProjection = items:[DownwardAPIVolumeFile]
    PodCertificateProjection = certificateChainPath credentialBundlePath keyPath keyType! maxExpirationSeconds:int
        signerName! user:int userAnnotations:map
    SecretProjection = items:[KeyToPath] name! optional:bool
    ServiceAccountTokenProjection = audience expirationSeconds:int path! user:int
    NodeSelectorTerm = matchExpressions:[NodeSelectorRequirement] matchFields:[NodeSelectorRequirement]
    LabelSelector = matchExpressions:[LabelSelectorRequirement] matchLabels:map
    TypedLocalObjectReference = apiGroup kind! name!
    TypedObjectReference = apiGroup kind! name! namespace
    VolumeResourceRequirements = limits:quantities requests:quantities
    NodeSelectorRequirement = key! operator! values:texts
    LabelSelectorRequirement = key! operator! values:texts
"""
"""A type and its fields, each with its type after a colon; without one it is text.

``!``: required, and not empty. ``texts``: a list of text. ``map``: text by text. ``quantities``: a quantity by text.
``[X]``: a list of X. ``any``: not checked.

It differs from the schema where that is laxer or stricter than the API server, which requires names of ConfigMaps and
Secrets, and reads a missing number as 0.
"""


def _field_types() -> dict[str, dict[str, tuple[str, bool]]]:
    types: dict[str, dict[str, tuple[str, bool]]] = {}
    for definition in re.split(r"\n {4}(?! )", _TABLE.rstrip())[1:]:
        name, _, fields = definition.partition(" = ")
        types[name] = {}
        for field in fields.split():
            word, _, kind = field.partition(":")
            types[name][word.rstrip("!")] = (kind or "text", word.endswith("!"))
    return types


FIELD_TYPES = _field_types()
"""By type, then by field: its type, and whether it is required."""

_QUANTITY = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?")
_ELEMENTS = {"texts": "text"}
_VALUES = {"map": "text", "quantities": "quantity"}


def is_quantity(value: Json) -> bool:
    """Return whether Kubernetes reads a value as a quantity: a number, or text such as ``500m`` and ``2Gi``."""
    if isinstance(value, str):
        return _QUANTITY.fullmatch(value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def fragment_problems(kind: str, fragment: Json, path: FieldPath = ()) -> Iterator[FieldProblem]:
    """Yield the problems of a fragment of type ``kind``, in the order of the document. ``path``: where it is.

    A field that is null counts as absent, as for Kubernetes.
    """
    if kind in FIELD_TYPES:
        yield from _object_problems(FIELD_TYPES[kind], fragment, path)
    elif kind in _VALUES:
        yield from _map_problems(_VALUES[kind], fragment, path)
    elif element := _element(kind):
        yield from _list_problems(element, fragment, path)
    else:
        yield from _scalar_problems(kind, fragment, path)


def without_nulls(kind: str, fragment: Json) -> Json:
    """Return a fragment without the fields that are null, which mean nothing to Kubernetes."""
    if kind in FIELD_TYPES and isinstance(fragment, Mapping):
        types = FIELD_TYPES[kind]
        present = {name: value for name, value in fragment.items() if value is not None}
        return {name: without_nulls(types.get(name, ("any", False))[0], value) for name, value in present.items()}
    if (element := _element(kind)) and isinstance(fragment, list):
        return [without_nulls(element, item) for item in fragment]
    return fragment


def _element(kind: str) -> str:
    """Return the type of the items of a list, "" if ``kind`` is no list."""
    return _ELEMENTS.get(kind, kind[1:-1] if kind.startswith("[") else "")


def _object_problems(types: Mapping[str, tuple[str, bool]], value: Json, path: FieldPath) -> Iterator[FieldProblem]:
    if not isinstance(value, Mapping):
        yield FieldProblem(path, f"is {_shown(value)}", "write a mapping of fields")
        return
    known = frozenset(types)
    for name, item in value.items():
        if not isinstance(name, str):
            yield FieldProblem(path, f"has the field {name!r}, which is not text", "put it into quotes")
        elif (guess := corrected_spelling(name, known)) is not None:
            yield FieldProblem((*path, name), "is not a field of Kubernetes", f"write {guess}")
        elif name in types and item is not None:
            yield from fragment_problems(types[name][0], item, (*path, name))
    for name, (_, required) in types.items():
        if required and value.get(name) in (None, "", [], {}):
            yield FieldProblem((*path, name), "is missing", f"write {name}: with a value")


def _map_problems(kind: str, value: Json, path: FieldPath) -> Iterator[FieldProblem]:
    if not isinstance(value, Mapping):
        yield FieldProblem(path, f"is {_shown(value)}", "write a mapping")
        return
    for name, item in value.items():
        if not isinstance(name, str):
            yield FieldProblem(path, f"has the key {name!r}, which is not text", "put it into quotes")
        elif item is not None:
            yield from fragment_problems(kind, item, (*path, name))


def _list_problems(kind: str, value: Json, path: FieldPath) -> Iterator[FieldProblem]:
    if not isinstance(value, list):
        yield FieldProblem(path, f"is {_shown(value)}", "write a list")
        return
    for index, item in enumerate(value):
        yield from fragment_problems(kind, item, (*path, index))


def _scalar_problems(kind: str, value: Json, path: FieldPath) -> Iterator[FieldProblem]:
    fix = ""
    if kind == "text" and not isinstance(value, str):
        fix = "write text" if isinstance(value, Mapping | list) or value is None else "put it into quotes"
    elif kind == "int" and not _is_integer(value):
        fix = "write a whole number, without quotes"
    elif kind == "bool" and not isinstance(value, bool):
        fix = "write true or false, without quotes"
    elif kind == "quantity" and not is_quantity(value):
        fix = "write a quantity, such as 500m or 2Gi"
    if fix:
        yield FieldProblem(path, f"is {_shown(value)}", fix)


def _is_integer(value: Json) -> bool:
    """Return whether JSON would have an integer: kubectl writes 1.0 as 1."""
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


def _shown(value: Json) -> str:
    """Return a value as YAML has it; a list or mapping is named only, because it may be long."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, date):
        return value.isoformat()
    names = {dict: "a mapping", list: "a list", type(None): "empty"}
    return names.get(type(value), repr(value))
