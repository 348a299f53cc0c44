import base64
import json

import pytest

from kubelocal.auth.service_account_tokens import AUDIENCE, TokenIssuer
from kubelocal.codec.status_errors import StatusError
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.storage.store import Store

NOW = 1_900_000_000.0


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def registry(clock):
    registry = ClusterRegistry(Store(), clock=clock)
    registry.create("Namespace", "", {"metadata": {"name": "ns"}})
    registry.create("ServiceAccount", "ns", {"metadata": {"name": "worker"}})
    spec = {"serviceAccountName": "worker", "containers": [{"name": "base", "image": "a"}]}
    registry.create("Pod", "ns", {"metadata": {"name": "pod"}, "spec": spec})
    return registry


@pytest.fixture
def issuer(registry, clock):
    return TokenIssuer(registry, "admin-token", clock=clock)


def ask(registry, issuer, **spec):
    return issuer.issue(registry.get("ServiceAccount", "ns", "worker"), {"spec": spec})


def claims(token):
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def test_a_token_says_whose_it_is_and_until_when(registry, issuer):
    answer = ask(registry, issuer, expirationSeconds=1200)
    said = claims(answer["status"]["token"])
    assert (said["exp"] - said["iat"], said["aud"], said["iss"]) == (1200, [AUDIENCE], AUDIENCE)
    assert said["sub"] == "system:serviceaccount:ns:worker"
    account = registry.get("ServiceAccount", "ns", "worker")["metadata"]
    assert said["kubernetes.io"] == {"namespace": "ns", "serviceaccount": {"name": "worker", "uid": account["uid"]}}
    assert answer["status"]["expirationTimestamp"] == "2030-03-17T18:06:40Z"
    user = issuer.authenticate(answer["status"]["token"])
    assert user.username == "system:serviceaccount:ns:worker"
    assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated")
    assert user.uid == account["uid"]


def test_the_administrator_is_a_master(issuer):
    assert "system:masters" in issuer.authenticate("admin-token").groups


@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c", "admin-token2", "..", "ümläut"])
def test_a_wrong_token_is_nobodys(issuer, token):
    assert issuer.authenticate(token) is None


def test_a_changed_or_foreign_token_is_nobodys(registry, issuer, clock):
    token = ask(registry, issuer)["status"]["token"]
    head, _, signature = token.split(".")
    forged = base64.urlsafe_b64encode(json.dumps({**claims(token), "sub": "root"}).encode()).rstrip(b"=").decode()
    assert issuer.authenticate(f"{head}.{forged}.{signature}") is None
    assert TokenIssuer(registry, "admin-token", clock=clock).authenticate(token) is None
    assert issuer.authenticate(ask(registry, issuer, audiences=["vault"])["status"]["token"]) is None


def test_a_token_ends_with_its_time(registry, issuer, clock):
    token = ask(registry, issuer, expirationSeconds=600)["status"]["token"]
    clock.now = NOW + 599
    assert issuer.authenticate(token)
    clock.now = NOW + 600
    assert issuer.authenticate(token) is None


def test_a_token_ends_with_its_account(registry, issuer):
    token = ask(registry, issuer)["status"]["token"]
    registry.delete("ServiceAccount", "ns", "worker")
    assert issuer.authenticate(token) is None
    registry.create("ServiceAccount", "ns", {"metadata": {"name": "worker"}})
    assert issuer.authenticate(token) is None


def test_a_bound_token_ends_with_its_pod(registry, issuer):
    pod = registry.get("Pod", "ns", "pod")["metadata"]
    answer = ask(registry, issuer, boundObjectRef={"kind": "Pod", "apiVersion": "v1", "name": "pod", "uid": pod["uid"]})
    token = answer["status"]["token"]
    assert claims(token)["kubernetes.io"]["pod"] == {"name": "pod", "uid": pod["uid"]}
    assert issuer.authenticate(token).extra["authentication.kubernetes.io/pod-name"] == ["pod"]
    registry.delete("Pod", "ns", "pod", grace_period=0)
    assert issuer.authenticate(token) is None


@pytest.mark.parametrize(
    ("spec", "code", "field"),
    [
        ({"expirationSeconds": 60}, 422, "spec.expirationSeconds"),
        ({"expirationSeconds": 2**33}, 422, "spec.expirationSeconds"),
        ({"boundObjectRef": {"kind": "Pod", "name": "missing"}}, 404, None),
        ({"boundObjectRef": {"kind": "Pod", "name": "pod", "uid": "other"}}, 409, None),
        ({"boundObjectRef": {"kind": "Job", "name": "pod"}}, 400, None),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(registry, issuer, spec, code, field):
    with pytest.raises(StatusError) as refused:
        ask(registry, issuer, **spec)
    assert refused.value.code == code
    if field:
        assert [cause["field"] for cause in refused.value.status["details"]["causes"]] == [field]
