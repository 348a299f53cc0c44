"""The fields of a Pod and of all types below it, as Kubernetes 1.37 has them."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches

__all__ = ["FIELD_TYPES", "corrected_spelling"]

_TABLE = """
    Pod = apiVersion kind metadata:ObjectMeta spec:PodSpec status:any
    ObjectMeta = annotations:map creationTimestamp deletionGracePeriodSeconds:int deletionTimestamp finalizers:texts
        generateName generation:int labels:map managedFields:any name namespace ownerReferences:[OwnerReference]
        resourceVersion selfLink uid
    PodSpec = activeDeadlineSeconds:int affinity:Affinity automountServiceAccountToken:bool containers:[Container]
        dnsConfig:PodDNSConfig dnsPolicy enableServiceLinks:bool ephemeralContainers:any
        evictionResponders:[EvictionResponder] hostAliases:[HostAlias] hostIPC:bool hostNetwork:bool hostPID:bool
        hostUsers:bool hostname hostnameOverride imagePullSecrets:[LocalObjectReference] initContainers:[Container]
        nodeName nodeSelector:map os:PodOS overhead:quantities preemptionPolicy priority:int priorityClassName
        readinessGates:[PodReadinessGate] resourceClaims:[PodResourceClaim] resources:ResourceRequirements
        restartPolicy runtimeClassName schedulerName schedulingGates:[PodSchedulingGate]
        schedulingGroup:PodSchedulingGroup securityContext:PodSecurityContext serviceAccount serviceAccountName
        setHostnameAsFQDN:bool shareProcessNamespace:bool subdomain terminationGracePeriodSeconds:int
        tolerations:[Toleration] topologySpreadConstraints:[TopologySpreadConstraint] volumes:[Volume]
    OwnerReference = apiVersion! blockOwnerDeletion:bool controller:bool kind! name! uid!
    Affinity = nodeAffinity:NodeAffinity podAffinity:PodAffinity podAntiAffinity:PodAntiAffinity
    Container = args:texts command:texts env:[EnvVar] envFrom:[EnvFromSource] image imagePullPolicy
        lifecycle:Lifecycle livenessProbe:Probe name! ports:[ContainerPort] readinessProbe:Probe
        resizePolicy:[ContainerResizePolicy] resources:ResourceRequirements restartPolicy
        restartPolicyRules:[ContainerRestartRule] securityContext:SecurityContext startupProbe:Probe stdin:bool
        stdinOnce:bool terminationMessagePath terminationMessagePolicy tty:bool volumeDevices:[VolumeDevice]
        volumeMounts:[VolumeMount] workingDir
    PodDNSConfig = nameservers:texts options:[PodDNSConfigOption] searches:texts
    EvictionResponder = name! priority!:int
    HostAlias = hostnames:texts ip!
    LocalObjectReference = name
    PodOS = name!
    PodReadinessGate = conditionType!
    PodResourceClaim = name! resourceClaimName resourceClaimTemplateName
    ResourceRequirements = claims:[ResourceClaim] limits:quantities requests:quantities
    PodSchedulingGate = name!
    PodSchedulingGroup = podGroupName
    PodSecurityContext = appArmorProfile:AppArmorProfile fsGroup:int fsGroupChangePolicy runAsGroup:int
        runAsNonRoot:bool runAsUser:int seLinuxChangePolicy seLinuxOptions:SELinuxOptions
        seccompProfile:SeccompProfile supplementalGroups:[int] supplementalGroupsPolicy sysctls:[Sysctl]
        windowsOptions:WindowsSecurityContextOptions
    Toleration = effect key operator tolerationSeconds:int value
    TopologySpreadConstraint = labelSelector:LabelSelector matchLabelKeys:texts maxSkew!:int minDomains:int
        nodeAffinityPolicy nodeTaintsPolicy topologyKey! whenUnsatisfiable!
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
    NodeAffinity = preferredDuringSchedulingIgnoredDuringExecution:[PreferredSchedulingTerm]
        requiredDuringSchedulingIgnoredDuringExecution:NodeSelector
    PodAffinity = preferredDuringSchedulingIgnoredDuringExecution:[WeightedPodAffinityTerm]
        requiredDuringSchedulingIgnoredDuringExecution:[PodAffinityTerm]
    PodAntiAffinity = preferredDuringSchedulingIgnoredDuringExecution:[WeightedPodAffinityTerm]
        requiredDuringSchedulingIgnoredDuringExecution:[PodAffinityTerm]
    EnvVar = name! value valueFrom:EnvVarSource
    EnvFromSource = configMapRef:ConfigMapEnvSource prefix secretRef:SecretEnvSource
    Lifecycle = postStart:LifecycleHandler preStop:LifecycleHandler stopSignal
    Probe = exec:ExecAction failureThreshold:int grpc:GRPCAction httpGet:HTTPGetAction initialDelaySeconds:int
        periodSeconds:int successThreshold:int tcpSocket:TCPSocketAction terminationGracePeriodSeconds:int
        timeoutSeconds:int
    ContainerPort = containerPort!:int hostIP hostPort:int name protocol
    ContainerResizePolicy = resourceName! restartPolicy!
    ContainerRestartRule = action! exitCodes:ContainerRestartRuleOnExitCodes
    SecurityContext = allowPrivilegeEscalation:bool appArmorProfile:AppArmorProfile capabilities:Capabilities
        privileged:bool procMount readOnlyRootFilesystem:bool runAsGroup:int runAsNonRoot:bool runAsUser:int
        seLinuxOptions:SELinuxOptions seccompProfile:SeccompProfile windowsOptions:WindowsSecurityContextOptions
    VolumeDevice = devicePath! name!
    VolumeMount = bindMountOptions:texts mountPath! mountPropagation name! readOnly:bool recursiveReadOnly subPath
        subPathExpr
    PodDNSConfigOption = name value
    ResourceClaim = name! request
    AppArmorProfile = localhostProfile type!
    SELinuxOptions = level role type user
    SeccompProfile = localhostProfile type!
    Sysctl = name! value!
    WindowsSecurityContextOptions = gmsaCredentialSpec gmsaCredentialSpecName hostProcess:bool runAsUserName
    LabelSelector = matchExpressions:[LabelSelectorRequirement] matchLabels:map
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
    PreferredSchedulingTerm = preference!:NodeSelectorTerm weight!:int
    NodeSelector = nodeSelectorTerms!:[NodeSelectorTerm]
    WeightedPodAffinityTerm = podAffinityTerm!:PodAffinityTerm weight!:int
    PodAffinityTerm = labelSelector:LabelSelector matchLabelKeys:texts mismatchLabelKeys:texts
        namespaceSelector:LabelSelector namespaces:texts topologyKey!
    EnvVarSource = configMapKeyRef:ConfigMapKeySelector fieldRef:ObjectFieldSelector fileKeyRef:FileKeySelector
        resourceFieldRef:ResourceFieldSelector secretKeyRef:SecretKeySelector
    ConfigMapEnvSource = name! optional:bool
    SecretEnvSource = name! optional:bool
    LifecycleHandler = exec:ExecAction httpGet:HTTPGetAction sleep:SleepAction tcpSocket:TCPSocketAction
    ExecAction = command:texts
    GRPCAction = mode port!:int service
    HTTPGetAction = host httpHeaders:[HTTPHeader] path port!:port protocol scheme
    TCPSocketAction = host port!:port
    ContainerRestartRuleOnExitCodes = operator! values:[int]
    Capabilities = add:texts drop:texts
    LabelSelectorRequirement = key! operator! values:texts
    KeyToPath = key! mode:int path! user:int
    DownwardAPIVolumeFile = fieldRef:ObjectFieldSelector mode:int path! resourceFieldRef:ResourceFieldSelector
        user:int
    PersistentVolumeClaimTemplate = metadata:ObjectMeta spec!:PersistentVolumeClaimSpec
    VolumeProjection = clusterTrustBundle:ClusterTrustBundleProjection configMap:ConfigMapProjection
        downwardAPI:DownwardAPIProjection podCertificate:PodCertificateProjection secret:SecretProjection
        serviceAccountToken:ServiceAccountTokenProjection
    NodeSelectorTerm = matchExpressions:[NodeSelectorRequirement] matchFields:[NodeSelectorRequirement]
    ConfigMapKeySelector = key! name! optional:bool
    ObjectFieldSelector = apiVersion fieldPath!
    FileKeySelector = key! optional:bool path! volumeName!
    ResourceFieldSelector = containerName divisor:quantity resource!
    SecretKeySelector = key! name! optional:bool
    SleepAction = seconds!:int
    HTTPHeader = name! value!
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
    NodeSelectorRequirement = key! operator! values:texts
    TypedLocalObjectReference = apiGroup kind! name!
    TypedObjectReference = apiGroup kind! name! namespace
    VolumeResourceRequirements = limits:quantities requests:quantities
"""
"""A type and its fields, each with its type after a colon; without one it is text.

``!``: required, and not empty. ``texts``: a list of text. ``map``: text by text. ``quantities``: a quantity by text.
``port``: a whole number, or text. ``[X]``: a list of X. ``any``: not checked.

It differs from the schema where that is laxer or stricter than the API server, which requires names of ConfigMaps and
Secrets, and reads a missing number as 0. Containers are not required: an override may have none.
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


def corrected_spelling(name: str, known: Collection[str], similarity: float = 0.85) -> str | None:
    """Return the known name that ``name`` misspells, None when it is known itself or resembles none.

    ``similarity``: of 1. The default is for names of fields, which may be right in a newer Kubernetes.
    """
    if name in known:
        return None
    folded = {field.lower(): field for field in known}
    close = get_close_matches(name.replace("_", "").lower(), folded, n=1, cutoff=similarity)
    return folded[close[0]] if close else None
