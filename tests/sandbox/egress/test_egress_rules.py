"""What the rules decide, without any I/O."""

from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.errors import ConfigurationError
from greenroom.sandbox.egress.addresses import is_metadata, read_host, why_not_public
from greenroom.sandbox.egress.refusal import Refusal
from greenroom.sandbox.egress.rules import Policy, Route, Target
from greenroom.sandbox.settings import EgressRules

PUBLIC = "93.184.216.34"


def target(host: str, port: int = 443) -> Target:
    return Target(read_host(host), port)


def decide(rules: EgressRules, host: str, port: int = 443, found: str = PUBLIC) -> Route:
    """The route to a host whose name has the addresses `found`, separated by commas."""
    policy = Policy(rules)
    asked = target(host, port)
    return policy.before_lookup(asked) or policy.after_lookup(asked, found.split(","))


def reason(rules: EgressRules, host: str, port: int = 443, found: str = PUBLIC) -> str:
    with pytest.raises(Refusal) as caught:
        decide(rules, host, port, found)
    assert caught.value.status is HTTPStatus.FORBIDDEN
    return caught.value.reason


def where(route: Route) -> list[str]:
    return [f"{address}:{route.port}" for address in route.addresses]


def test_a_public_host_is_reached_at_the_addresses_that_were_judged() -> None:
    route = decide(EgressRules(), "example.com", found=f"{PUBLIC},2606:4700::1111,{PUBLIC}")
    assert where(route) == [f"{PUBLIC}:443", "2606:4700::1111:443"]
    assert not route.trusted


@pytest.mark.parametrize(
    "found", ["10.0.0.5", "127.0.0.1", "::1", "fe80::1%eth0", "::ffff:10.0.0.5", "0.0.0.0"]
)
def test_a_name_that_leads_inside_is_refused(found: str) -> None:
    assert reason(EgressRules(), "innocent.test", found=found).startswith("innocent.test:443 leads to")


def test_the_box_does_not_learn_where_an_inner_name_leads() -> None:
    with pytest.raises(Refusal) as caught:
        decide(EgressRules(), "intranet.corp", found="10.0.0.5")
    assert "10.0.0.5" not in caught.value.encode().decode()
    assert "10.0.0.5" in caught.value.for_log


def test_of_many_addresses_only_the_public_ones_are_used() -> None:
    assert where(decide(EgressRules(), "both.test", found=f"10.0.0.5,{PUBLIC},::1")) == [f"{PUBLIC}:443"]


def test_a_name_without_addresses_is_not_found() -> None:
    policy = Policy(EgressRules())
    with pytest.raises(Refusal, match="no address") as caught:
        policy.after_lookup(target("empty.test"), [])
    assert caught.value.status is HTTPStatus.BAD_GATEWAY


@pytest.mark.parametrize(
    "found", ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "100.100.100.200"]
)
@pytest.mark.parametrize("host", ["metadata.test", "pinned.test", "169.254.169.254"])
def test_no_rule_opens_the_way_to_metadata(host: str, found: str) -> None:
    rules = EgressRules(
        allow=("*",), private=("0.0.0.0/0", "::/0"), hosts={"pinned.test": "169.254.169.254:80"}
    )
    assert "metadata" in reason(rules, host, 80, found)


@pytest.mark.parametrize(
    ("entry", "host", "port", "matches"),
    [
        ("example.com", "example.com", 443, True),
        ("example.com", "EXAMPLE.com.", 80, True),
        ("example.com", "www.example.com", 443, False),
        ("example.com", "evilexample.com", 443, False),
        ("*.example.com", "www.example.com", 443, True),
        ("*.example.com", "a.b.example.com", 443, True),
        ("*.example.com", "example.com", 443, False),
        ("*.example.com", "evilexample.com", 443, False),
        ("*.example.com", "example.com.evil.test", 443, False),
        ("example.com:8443", "example.com", 8443, True),
        ("example.com:8443", "example.com", 443, False),
        ("*", "anything.test", 443, True),
        ("*:443", "anything.test", 80, False),
        ("münchen.de", "xn--mnchen-3ya.de", 443, True),
        (PUBLIC, PUBLIC, 443, True),
        (PUBLIC, "0x5db8d822", 443, True),
        (PUBLIC, "name.test", 443, False),
        ("93.184.0.0/16", PUBLIC, 443, True),
        ("93.184.0.0/16:80", PUBLIC, 443, False),
        ("2606:4700::1111", "[2606:4700:0::1111]", 443, True),
        ("[2606:4700::1111]:443", "[2606:4700::1111]", 443, True),
        ("[2606:4700::1111]:443", "[2606:4700::1111]", 80, False),
        ("2606:4700::/32", "[2606:4700::1111]", 443, True),
    ],
)
def test_an_entry_of_a_list_means(entry: str, host: str, port: int, matches: bool) -> None:
    if matches:
        assert decide(EgressRules(allow=(entry,)), host, port)
        if "/" not in entry or host != "name.test":
            assert "list" in reason(EgressRules(deny=(entry,)), host, port)
    else:
        assert "not on the list" in reason(EgressRules(allow=(entry,)), host, port)


def test_denied_addresses_are_denied_under_any_name() -> None:
    rules = EgressRules(deny=("93.184.0.0/16",))
    assert "may not reach" in reason(rules, "name.test")
    assert decide(rules, "name.test", found="8.8.8.8")


def test_denied_wins_over_allowed() -> None:
    assert "may not" in reason(EgressRules(allow=("*.test",), deny=("bad.test",)), "bad.test")


def test_what_lists_say_is_said_before_a_name_is_looked_up() -> None:
    with pytest.raises(Refusal):
        Policy(EgressRules(allow=("good.test",))).before_lookup(target("secret-in-a-name.evil.test"))


def test_being_allowed_by_name_does_not_make_a_private_address_fine() -> None:
    assert "private" in reason(EgressRules(allow=("good.test",)), "good.test", found="10.0.0.1")


@pytest.mark.parametrize(
    ("entry", "found", "port", "fine"),
    [
        ("10.1.0.0/16", "10.1.2.3", 443, True),
        ("10.1.0.0/16", "10.2.2.3", 443, False),
        ("10.1.0.0/16", "::ffff:10.1.2.3", 443, True),
        ("10.1.0.0/16", "64:ff9b::10.1.2.3", 443, False),
        ("10.1.2.3", "10.1.2.3", 22, True),
        ("10.1.2.3:8000", "10.1.2.3", 8000, True),
        ("10.1.2.3:8000", "10.1.2.3", 8001, False),
        ("[fd00::1]:80", "fd00::1", 80, True),
        ("fd00::/8", "fd00::1", 443, True),
    ],
)
def test_private_addresses_are_excepted(entry: str, found: str, port: int, fine: bool) -> None:
    rules = EgressRules(private=(entry,))
    if fine:
        assert decide(rules, "inner.test", port, found).trusted
    else:
        assert "boxes may not reach" in reason(rules, "inner.test", port, found)


def test_names_of_the_rules_are_not_looked_up() -> None:
    rules = EgressRules(
        hosts={"shop.test": "127.0.0.1:8000", "Other.Test.": "10.0.0.1", "six.test": "[::1]:1"}
    )
    policy = Policy(rules)
    route = policy.before_lookup(target("SHOP.test"))
    assert route == Route(decide(rules, "shop.test").addresses, 8000, trusted=True)
    assert where(decide(rules, "other.test", 81)) == ["10.0.0.1:81"]
    assert where(decide(rules, "six.test")) == ["::1:1"]
    assert policy.before_lookup(target("www.shop.test")) is None


@pytest.mark.parametrize(
    "port", [1, 21, 22, 23, 25, 53, 110, 135, 139, 445, 465, 587, 993, 1023, 2049, 6000, 6667]
)
def test_ports_of_other_protocols_are_refused(port: int) -> None:
    assert "not for the web" in reason(EgressRules(), "example.com", port)
    assert decide(EgressRules(allow=(f"example.com:{port}",)), "example.com", port)


@pytest.mark.parametrize("port", [80, 443, 3000, 8000, 8080, 8443, 65535])
def test_ports_of_the_web_are_fine(port: int) -> None:
    assert where(decide(EgressRules(), "example.com", port)) == [f"{PUBLIC}:{port}"]


@pytest.mark.parametrize(
    "rules",
    [
        {"allow": ("exa mple.com",)},
        {"allow": ("",)},
        {"deny": ("example.com:0",)},
        {"deny": ("example.com:http",)},
        {"deny": ("10.0.0.0/33",)},
        {"private": ("example.com",)},
        {"private": ("*",)},
        {"hosts": {"a.test": "b.test"}},
        {"hosts": {"a.test": "10.0.0.1:99999"}},
        {"hosts": {"a b": "10.0.0.1"}},
    ],
    ids=str,
)
def test_rules_that_cannot_be_understood_are_named(rules: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="egress rules"):
        Policy(EgressRules(**rules))  # type: ignore[arg-type]


addresses = st.lists(st.ip_addresses().map(str), max_size=6)
ports = st.integers(1, 65535)


@given(addresses, ports)
def test_whatever_a_name_server_says_boxes_stay_outside(found: list[str], port: int) -> None:
    try:
        route = Policy(EgressRules()).after_lookup(target("any.test", port), found)
    except Refusal:
        return
    assert route.addresses
    assert all(why_not_public(address) is None for address in route.addresses)


@given(addresses, ports)
def test_with_everything_excepted_metadata_stays_out(found: list[str], port: int) -> None:
    rules = EgressRules(private=("0.0.0.0/0", "::/0"))
    inside = [*found, "169.254.169.254", "2002:a9fe:a9fe::", "fd00:ec2::254"]
    try:
        route = Policy(rules).after_lookup(target("any.test", port), inside)
    except Refusal:
        return
    assert not any(map(is_metadata, route.addresses))
