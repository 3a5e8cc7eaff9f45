"""The egress guard: every rule of outgoing requests, over real sockets where one could be opened."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import re
from collections.abc import Callable

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearspan.experiments import egress
from clearspan.experiments.egress import (
    AnswerTooLarge,
    EgressPolicy,
    EgressRefused,
    EgressTransport,
    Resolver,
    is_public,
    unwrapped,
)
from clearspan.testing.llm_stub import Fault, LlmStub

BODY = {"model": "m", "messages": [{"role": "user", "content": "item-1"}]}
FORBIDDEN = re.findall(
    r"\S+",
    """
    127.0.0.1 127.8.8.8 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 0.0.0.0 100.64.0.1 192.0.0.8 192.0.2.1
    198.18.0.1 198.51.100.7 203.0.113.9 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 192.88.99.1
    ::1 :: fe80::1 fc00::1 fd12::1 fec0::1 ff02::1 2001:db8::1 100::1
    ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::7f00:1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 2002:7f00:1:: 2002:c0a8:101::1
    2001:0:4136:e378:8000:63bf:80ff:fffe
    """,
)
OPEN = [
    "8.8.8.8",
    "1.1.1.1",
    "93.184.216.34",
    "2606:4700:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::",
]


@pytest.mark.parametrize("text", FORBIDDEN)
def test_an_address_that_is_not_of_the_open_internet_is_refused(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))
    with pytest.raises(EgressRefused):
        EgressPolicy().check_addresses("host", 443, ["8.8.8.8", text])


@pytest.mark.parametrize("text", OPEN)
def test_an_address_of_the_open_internet_is_taken(text: str) -> None:
    assert EgressPolicy().check_addresses("host", 443, [text]) == [str(ipaddress.ip_address(text))]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_wrapped_address_is_judged_as_what_it_wraps(number: int) -> None:
    plain = ipaddress.IPv4Address(number)
    forms = [
        ipaddress.IPv6Address((0xFFFF << 32) | number),
        ipaddress.IPv6Address((0x64FF9B << 96) | number),
        ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1),
        ipaddress.IPv6Address((0x20010000 << 96) | (0x08080808 << 64) | (number ^ 0xFFFFFFFF)),
        *([ipaddress.IPv6Address(number)] if number > 1 else []),
    ]
    assert {is_public(form) for form in forms} == {is_public(plain)}
    assert all(plain in unwrapped(form) for form in forms)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://example.com:22/",
        "https://user:secret@example.com/",
        "ftp://example.com/",
        "https://user@127.0.0.1:8000/",
    ],
)
def test_only_https_at_known_ports_and_without_a_user(url: str) -> None:
    policy = EgressPolicy(frozenset({("127.0.0.1", 8000)}))
    with pytest.raises(EgressRefused) as raised:
        policy.check_url(httpx2.URL(url))
    assert "secret" not in str(raised.value)


def test_the_operator_allows_one_host_at_one_port_and_networks() -> None:
    policy = EgressPolicy(frozenset({("inner", 80)}), (ipaddress.ip_network("10.0.0.0/8"),))
    policy.check_url(httpx2.URL("http://INNER/"))
    policy.check_url(httpx2.URL("https://example.com:8443/"))
    assert policy.check_addresses("Inner", 80, ["127.0.0.1"]) == ["127.0.0.1"]
    assert policy.check_addresses("other", 443, ["10.1.1.1", "64:ff9b::a01:101"])
    for host, port, address in (("inner", 443, "127.0.0.1"), ("other", 80, "127.0.0.1"), ("other", 443, "192.168.0.1")):
        with pytest.raises(EgressRefused):
            policy.check_addresses(host, port, [address])
    with pytest.raises(EgressRefused):
        policy.check_addresses("nothing", 443, [])


def post(
    url: str,
    policy: EgressPolicy,
    *,
    resolver: Resolver = egress.resolve,
    seconds_max: float = 5.0,
    bytes_max: int = 10_000,
) -> httpx2.Response:
    """One request through the guard."""

    async def run() -> httpx2.Response:
        transport = EgressTransport(policy, seconds_max=seconds_max, bytes_max=bytes_max, resolver=resolver)
        async with httpx2.AsyncClient(transport=transport, trust_env=False) as client:
            return await client.post(url, json=BODY)

    return asyncio.run(run())


def allowing(stub: LlmStub, host: str = "127.0.0.1") -> EgressPolicy:
    return EgressPolicy(frozenset({(host, stub.port)}))


def resolving(*addresses: str) -> tuple[Resolver, list[str]]:
    """A resolver that says each address in turn, and the hosts it was asked for."""
    asked: list[str] = []

    async def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        return [addresses[min(len(asked), len(addresses)) - 1]]

    return resolver, asked


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "localhost", "[::1]"])
def test_every_spelling_of_this_machine_is_refused(host: str) -> None:
    with LlmStub() as stub:
        policy = EgressPolicy(ports=frozenset({stub.port}))
        with pytest.raises((EgressRefused, httpx2.InvalidURL)):
            post(f"https://{host}:{stub.port}/v1/chat/completions", policy)
        assert not stub.calls


def test_an_allowed_host_is_asked_at_the_address_that_was_checked() -> None:
    resolver, asked = resolving("127.0.0.1", "203.0.113.1")
    with LlmStub() as stub:
        url = f"http://models.inner:{stub.port}/v1/chat/completions"
        assert post(url, allowing(stub, "models.inner"), resolver=resolver).status_code == 200
        assert asked == ["models.inner"], "resolved once"
        assert stub.calls[0].headers["host"] == f"models.inner:{stub.port}"


def test_a_name_that_resolves_otherwise_the_second_time_gains_nothing() -> None:
    """DNS rebinding: what is checked is what is connected to, on each connection."""
    resolver, asked = resolving("8.8.8.8", "127.0.0.1")
    policy = EgressPolicy()

    async def run() -> None:
        backend = egress.GuardedBackend(policy, resolver)
        connected: list[str] = []

        class Network:
            async def connect_tcp(self, host: str, *rest: object) -> str:
                connected.append(host)
                return "stream"

        backend._network = Network()  # type: ignore[assignment]
        await backend.connect_tcp("rebinding.example", 443)
        with pytest.raises(EgressRefused):
            await backend.connect_tcp("rebinding.example", 443)
        assert connected == ["8.8.8.8"]

    asyncio.run(run())
    assert len(asked) == 2


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    with LlmStub() as inner, LlmStub() as stub:
        stub.fail(None, Fault(307, headers={"Location": f"{inner.url}/chat/completions"}))
        assert post(f"{stub.url}/chat/completions", allowing(stub)).status_code == 307
        assert not inner.calls


def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with LlmStub() as proxy, LlmStub() as stub:
        for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert post(f"{stub.url}/chat/completions", allowing(stub)).status_code == 200
        assert (len(proxy.calls), len(stub.calls)) == (0, 1)


def zipped(size: int) -> Fault:
    return Fault(headers={"Content-Encoding": "gzip"}, body=gzip.compress(b"0" * size))


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(delay_s=2.0), httpx2.ReadTimeout),
        (Fault(endless_bytes=10_000_000), (httpx2.ReadTimeout, AnswerTooLarge)),
        (Fault(body=b"x" * 20_000), AnswerTooLarge),
        (zipped(50_000_000), httpx2.RemoteProtocolError),
        (Fault(is_dropped=True), httpx2.NetworkError),
    ],
    ids=["slow", "endless", "large", "zipped", "dropped"],
)
def test_an_answer_has_a_limit_of_time_and_of_size(fault: Fault, error: type[Exception]) -> None:
    with LlmStub() as stub:
        stub.fail(None, fault)
        with pytest.raises(error):
            post(f"{stub.url}/chat/completions", allowing(stub), seconds_max=0.4)


def test_a_drop_by_drop_answer_ends_at_its_deadline() -> None:
    """Each piece comes in time; all of them do not."""
    with LlmStub() as stub:
        stub.fail(None, Fault(endless_bytes=2_000_000))
        with pytest.raises(httpx2.ReadTimeout):
            post(f"{stub.url}/chat/completions", allowing(stub), seconds_max=0.3, bytes_max=10**9)


@pytest.mark.parametrize("broken", [OSError, TimeoutError])
def test_a_name_that_cannot_be_resolved(broken: Callable[[], Exception]) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        raise broken()

    with pytest.raises(httpx2.TransportError):
        post("https://nowhere.example/", EgressPolicy(), resolver=resolver)
