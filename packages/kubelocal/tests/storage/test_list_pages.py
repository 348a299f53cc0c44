from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelocal.codec.kinds import KINDS
from kubelocal.codec.status_errors import StatusError
from kubelocal.storage.list_pages import ListPage, list_page, read_list_options
from kubelocal.storage.selectors import EVERYTHING, select
from kubelocal.storage.store import Store

CONFIG = KINDS["ConfigMap"]


def put(store: Store, namespace: str, name: str, **labels: str) -> None:
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    store.put("ConfigMap", namespace, name, {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata})


def names(page: ListPage) -> list[str]:
    return [f"{entry.object['metadata']['namespace']}/{entry.object['metadata']['name']}" for entry in page.entries]


def query(store: Store, namespace: str | None = None, labels: str = "", **given: str) -> ListPage:
    selector = select(CONFIG, labels, "") if labels else EVERYTHING
    options = read_list_options({key.replace("continues", "continue"): text for key, text in given.items()}, selector)
    return list_page(store, CONFIG, namespace, options)


@given(
    st.sets(st.tuples(st.sampled_from(["one", "two"]), st.sampled_from("abcdefg"))),
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from(["one", "two"]), st.sampled_from("abcdefgh")), max_size=3),
)
def test_pages_give_the_first_pages_state_once_and_in_order(
    objects: set[tuple[str, str]], limit: int, later: list[tuple[str, str]]
) -> None:
    store = Store()
    for namespace, name in objects:
        put(store, namespace, name)
    whole = names(query(store))
    page = query(store, limit=str(limit))
    seen, version = names(page), page.version
    for namespace, name in later:
        put(store, namespace, name)
    while page.continues:
        assert page.remaining == len(whole) - len(seen)
        page = query(store, limit=str(limit), continues=page.continues)
        seen += names(page)
        assert page.version == version
    assert seen == whole == sorted(whole)


def test_with_a_selector_pages_count_what_matches_and_do_not_tell_what_remains() -> None:
    store = Store()
    for at, name in enumerate("abcdef"):
        put(store, "one", name, even=str(at % 2 == 0))
    page = query(store, "one", "even=True", limit="2")
    assert (names(page), page.remaining) == (["one/a", "one/c"], None)
    page = query(store, "one", "even=True", limit="2", continues=page.continues)
    assert (names(page), page.continues) == (["one/e"], "")


def test_a_continue_token_expires_with_the_history() -> None:
    store = Store()
    for name in "abc":
        put(store, "one", name)
    token = query(store, limit="1").continues
    put(store, "one", "d")
    store.compact()
    with pytest.raises(StatusError) as refusal:
        query(store, limit="1", continues=token)
    assert (refusal.value.code, refusal.value.reason) == (410, "Expired")


def test_an_exact_version_is_listed_as_it_was() -> None:
    store = Store()
    put(store, "one", "a")
    version = str(store.version)
    put(store, "one", "b")
    page = query(store, resourceVersion=version, limit="5")
    assert (names(page), page.version) == (["one/a"], int(version))
    assert names(query(store, resourceVersion=version)) == ["one/a", "one/b"]


@pytest.mark.parametrize("limit", ["", "1"])
def test_the_match_says_whether_a_version_is_exact_or_the_oldest(limit: str) -> None:
    store = Store()
    put(store, "one", "a")
    version = str(store.version)
    put(store, "one", "a0")
    given = {"resourceVersion": version, "limit": limit}
    exact = query(store, resourceVersionMatch="Exact", **given)
    assert (names(exact), exact.version, exact.continues) == (["one/a"], int(version), "")
    newer = query(store, resourceVersionMatch="NotOlderThan", **given)
    assert (names(newer), newer.version) == (["one/a", "one/a0"][: int(limit or 2)], store.version)


def test_version_0_is_a_full_list_whatever_the_limit() -> None:
    store = Store()
    for name in "abc":
        put(store, "one", name)
    assert len(query(store, resourceVersion="0", limit="1").entries) == 3


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ({"limit": "many"}, 400, "invalid syntax"),
        ({"continues": "%%%"}, 400, "continue key is not valid"),
        ({"continues": "e30="}, 400, "continue key is not valid"),
        ({"continues": "x", "resourceVersion": "5"}, 400, "not allowed when using continue"),
        ({"resourceVersion": "x"}, 400, "resourceVersion: Invalid value"),
        ({"resourceVersion": "999999999"}, 504, "Too large resource version: 999999999, current: 1000"),
        ({"resourceVersion": "1", "limit": "1"}, 410, "too old"),
        ({"resourceVersion": "1", "resourceVersionMatch": "Exact"}, 410, "too old"),
        ({"resourceVersionMatch": "Exact"}, 422, "forbidden unless resourceVersion is provided"),
        (
            {"resourceVersion": "5", "resourceVersionMatch": "bogus"},
            422,
            'supported values: "Exact", "NotOlderThan", ""',
        ),
        ({"resourceVersion": "0", "resourceVersionMatch": "Exact"}, 422, 'forbidden for resourceVersion "0"'),
        (
            {"resourceVersion": "5", "resourceVersionMatch": "Exact", "continues": "x"},
            422,
            "forbidden when continue is provided",
        ),
        ({"sendInitialEvents": "true"}, 422, "sendInitialEvents is forbidden for list"),
    ],
)
def test_a_wrong_query_is_refused(given: dict[str, str], code: int, words: str) -> None:
    with pytest.raises(StatusError) as refusal:
        query(Store(), **given)
    assert refusal.value.code == code
    assert words in refusal.value.status["message"]
