import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelocal.registry import name_validation as rules

LONG = "must be no more than 63 bytes"


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (rules.dns_label, ["a", "a-b", "1", "x" * 63], ["", "A", "-a", "a-", "a.b", "a_b", "x" * 64]),
        (rules.dns_subdomain, ["a", "a.b", "1-a.b", "x" * 253], ["", "a..b", ".a", "a.", "A.b", "a_b", "x" * 254]),
        (rules.label_value, ["", "A-b_c.1", "x" * 63], ["-a", "a-", "a b", "a:b", "a/b", "ä", "x" * 64]),
        (rules.label_key, ["a", "A.b_c", "a.b/C-d", "x" * 63], ["", "/a", "a/", "a/b/c", "A/b", "a b", "x" * 64]),
        (rules.config_key, ["a", ".b", "A_b-c.d"], ["", "a b", "a/b", "x" * 254, ".", "..", "..data"]),
        (rules.env_name, ["A", "a.b-c", "1", "a b"], ["A=B", "ä", "a\n"]),
        (rules.port_name, ["http", "a-1", "x" * 15], ["", "1", "-a", "a-", "a--b", "A", "x" * 16]),
    ],
)
def test_names_are_judged_by_kubernetes_rules(rule, good, bad):
    assert [text for text in good if rule(text)] == []
    assert [text for text in bad if not rule(text)] == []


def test_complaints_are_in_kubernetes_words():
    assert rules.dns_label("a.b") == ("must not contain dots",)
    assert rules.dns_label("x" * 64) == (LONG,)
    long_and_wrong = rules.label_value("-" * 64)
    assert long_and_wrong[0] == LONG
    assert long_and_wrong[1].startswith("a valid label must be an empty string or consist of alphanumeric characters")
    assert long_and_wrong[1].endswith("regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')")
    assert rules.label_key("a/") == ("name part must be non-empty",)
    assert rules.label_key("A/b")[0].startswith("prefix part a lowercase RFC 1123 subdomain must consist of")
    assert rules.label_key("a b")[0].startswith("name part must consist of alphanumeric characters")


@given(st.text(max_size=70))
def test_a_label_is_a_subdomain_and_every_text_is_judged(text):
    if not rules.dns_label(text):
        assert not rules.dns_subdomain(text)
        assert not rules.label_value(text)
    for rule in (rules.label_key, rules.config_key, rules.env_name, rules.port_name):
        assert all(isinstance(complaint, str) for complaint in rule(text))
