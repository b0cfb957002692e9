"""Settings from the environment."""

from pathlib import Path

import pytest

from greenroom.actors.errors import ConfigurationError
from greenroom.sandbox.settings import EgressRules, SandboxSettings


def test_an_empty_environment_gives_the_defaults() -> None:
    assert SandboxSettings.from_environ({}) == SandboxSettings()


def test_each_variable_is_read() -> None:
    environ = {
        "GREENROOM_SANDBOX": "local",
        "GREENROOM_SANDBOX_TOKEN": "secret",
        "GREENROOM_SANDBOX_LINK": "port",
        "GREENROOM_SANDBOX_UNSAFE": "1",
        "GREENROOM_SANDBOX_TRUST": "/etc/our-ca.pem",
        "GREENROOM_SANDBOX_WARM": "2",
        "GREENROOM_SANDBOX_ALLOW": "example.com, *.example.org:443",
        "GREENROOM_SANDBOX_HOSTS": "a.test=127.0.0.1:8000,b.test=10.0.0.1",
    }
    assert SandboxSettings.from_environ(environ) == SandboxSettings(
        backend="local",
        token="secret",
        link="port",
        unsafe_local_browser=True,
        trusted_certificates=Path("/etc/our-ca.pem"),
        warm=2,
        egress=EgressRules(
            allow=("example.com", "*.example.org:443"),
            hosts={"a.test": "127.0.0.1:8000", "b.test": "10.0.0.1"},
        ),
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("BOXES", "many"), ("LINK", "tcp"), ("UNSAFE", "yes"), ("HOSTS", "a.test")],
    ids=lambda text: text,
)
def test_what_cannot_be_understood_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"GREENROOM_SANDBOX_{name}='{value}': it is"):
        SandboxSettings.from_environ({f"GREENROOM_SANDBOX_{name}": value})
