"""One host has one spelling, and no way of writing an address makes it a public one."""

# ruff: noqa: RUF001 - letters that look like others are what is tested

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.sandbox.egress.addresses import (
    METADATA,
    is_metadata,
    plain,
    read_address,
    read_host,
    why_not_public,
    wrapped,
)

METADATA_SPELLINGS = [
    "169.254.169.254",
    "169.254.169.254.",
    "169.254.43518",
    "169.16689662",
    "2852039166",
    "0xa9fea9fe",
    "0XA9FEA9FE",
    "0xa9.0xfe.0xa9.0xfe",
    "0251.0376.0251.0376",
    "025177524776",
    "0251.0xfe.43518",
    "0000000000251.254.169.254",
    "１６９.254.169.254",
    "169。254。169。254",
    "①⑥⑨.254.169.254",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[0:0:0:0:0:FFFF:A9FE:A9FE]",
    "[::169.254.169.254]",
    "[::ffff:0:169.254.169.254]",
    "[64:ff9b::169.254.169.254]",
    "[64:ff9b:1::169.254.169.254]",
    "[64:ff9b:1:a9fe:00a9:fe00::]",
    "[64:ff9b:1:a9:00fe:a9fe::]",
    "[64:ff9b:1:0:00a9:fea9:fe00:0]",
    "[2002:a9fe:a9fe::]",
    "[2002:a9fe:a9fe::1]",
    "[2001:0:a9fe:a9fe::]",
    "[2001:0:1:1:0:0:5601:5601]",
    "[2001:470::5efe:169.254.169.254]",
    "[2001:470::200:5efe:169.254.169.254]",
    "[fd00:ec2::254]",
    "[FD00:0EC2:0:0:0:0:0:0254]",
    "100.100.100.200",
    "1684301000",
    "168.63.129.16",
    "[fd20:ce::254]",
]


@pytest.mark.parametrize("text", METADATA_SPELLINGS)
def test_metadata_is_known_in_every_spelling(text: str) -> None:
    address = read_host(text).address
    assert address is not None
    assert is_metadata(address)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("127.0.0.1", "loopback"),
        ("127.1", "loopback"),
        ("0x7f.1", "loopback"),
        ("017700000001", "loopback"),
        ("2130706433", "loopback"),
        ("127.255.255.254", "loopback"),
        ("0", "this host"),
        ("0x", "this host"),
        ("0.0.0.0", "this host"),
        ("[::1]", "loopback"),
        ("[::]", "this host"),
        ("[::ffff:127.0.0.1]", "loopback"),
        ("[64:ff9b::7f00:1]", "translation of loopback"),
        ("[64:ff9b::10.0.0.1]", "translation of private"),
        ("[64:ff9b:1::8.8.8.8]", "reserved"),
        ("[2002:7f00:1::]", "6to4"),
        ("[2002:808:808::]", "6to4"),
        ("[2001::1]", "reserved"),
        ("10.0.0.1", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "shared"),
        ("169.254.1.1", "link-local"),
        ("[fe80::1]", "link-local"),
        ("[fc00::1]", "private"),
        ("[fdff::1]", "private"),
        ("[fec0::1]", "private"),
        ("224.0.0.1", "multicast"),
        ("[ff02::1]", "multicast"),
        ("255.255.255.255", "reserved"),
        ("240.0.0.1", "reserved"),
        ("198.18.0.1", "reserved"),
        ("[2001:db8::1]", "reserved"),
        ("[::8.8.8.8]", "reserved"),
        ("[100::1]", "reserved"),
        ("[4000::1]", "reserved"),
    ],
)
def test_what_is_not_public_is_named(text: str, what: str) -> None:
    address = read_host(text).address
    assert address is not None
    assert what in (why_not_public(address) or "")


@pytest.mark.parametrize(
    "text",
    [
        "8.8.8.8",
        "172.32.0.1",
        "172.15.0.1",
        "100.63.0.1",
        "11.0.0.1",
        "[2606:4700::1111]",
        "[64:ff9b::8.8.8.8]",
    ],
)
def test_what_is_public_is_not_refused(text: str) -> None:
    address = read_host(text).address
    assert address is not None
    assert why_not_public(address) is None
    assert not is_metadata(address)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("münchen.de", "xn--mnchen-3ya.de"),
        ("MÜNCHEN.DE.", "xn--mnchen-3ya.de"),
        ("ｅｘａｍｐｌｅ.com", "example.com"),
        ("example。com", "example.com"),
        ("exam\u00adple.com", "example.com"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("1.2.3.example", "1.2.3.example"),
        ("1e100.net", "1e100.net"),
    ],
)
def test_a_name_has_one_spelling(text: str, name: str) -> None:
    assert read_host(text) == (name, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a..b",
        ".example.com",
        "example.com..",
        "1.2.3.4.5",
        "256.1.1.1",
        "1.2.3.256",
        "1.2.65536",
        "4294967296",
        "08.1.1.1",
        "1.2.3.0x100",
        "example.1",
        "a.0x7f",
        "example.com%00.evil.test",
        "%31%32%37.0.0.1",
        "a b",
        "a\tb",
        "a\x00b",
        "user@host",
        "a/b",
        "a／b",
        "a＠b",
        "-a.test",
        "a-.test",
        "[127.0.0.1]",
        "[fe80::1%eth0]",
        "[fe80::1%25eth0]",
        "[::1",
        "::1",
        "[]",
        "[:::1]",
        "x" * 64 + ".test",
        "x." * 127 + "test",
        "\udcff.test",
    ],
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_host(text)


def spellings(address: int) -> list[str]:
    parts = [address >> 24, address >> 16 & 255, address >> 8 & 255, address & 255]
    return [
        str(address),
        hex(address),
        f"0{address:o}",
        ".".join(map(str, parts)),
        ".".join(map(hex, parts)),
        ".".join(f"0{part:o}" for part in parts),
        f"{parts[0]}.{address & 0xFFFFFF}",
        f"{parts[0]}.{parts[1]:#x}.{address & 0xFFFF}",
        f"[::ffff:{IPv4Address(address)}]",
        f"[::ffff:{address >> 16:x}:{address & 0xFFFF:x}]",
    ]


@given(st.integers(0, 2**32 - 1))
def test_all_spellings_are_one_address(number: int) -> None:
    address = IPv4Address(number)
    assert {read_host(text) for text in spellings(number)} == {(str(address), address)}


@given(st.integers(0, 2**32 - 1))
def test_what_is_public_is_public_for_the_library_too(number: int) -> None:
    address = IPv4Address(number)
    if why_not_public(address) is None:
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_reserved


NAT64 = ip_network("64:ff9b::/96")
EDGES = [
    ip_address(text)
    for text in ["2000::", "2001::", "2002::", "3fff::", "64:ff9b::", "fc00::", "fe80::", "::"]
]


@given(
    st.integers(0, 2**128 - 1)
    | st.builds(lambda edge, low: int(edge) | low, st.sampled_from(EDGES), st.integers(0))
)
def test_the_same_for_ipv6(number: int) -> None:
    address = plain(IPv6Address(number % 2**128))
    if why_not_public(address) is None and address.version == 6:
        assert address in NAT64 or address.is_global
        assert not address.is_multicast


@given(st.sampled_from(sorted(map(str, METADATA))).map(ip_address).filter(lambda found: found.version == 4))
def test_wrapping_hides_nothing(inner: IPv4Address | IPv6Address) -> None:
    number = int(inner)
    for outer in [
        0xFFFF << 32 | number,
        number,
        0x0064FF9B << 96 | number,
        0x2002 << 112 | number << 80 | 5,
        0x20010000 << 96 | number ^ 0xFFFFFFFF,
    ]:
        assert is_metadata(IPv6Address(outer))
        assert inner in {plain(IPv6Address(outer)), *wrapped(IPv6Address(outer))}


@given(st.text(max_size=80))
def test_anything_else_is_a_name_or_refused(text: str) -> None:
    try:
        host = read_host(text)
    except ValueError:
        return
    assert host.text.isascii()
    assert read_host(host.at(80).removesuffix(":80")) == host


def test_an_address_with_a_zone_is_none_of_the_internet() -> None:
    with pytest.raises(ValueError, match="zone"):
        read_address("fe80::1%eth0")
