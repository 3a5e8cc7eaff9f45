"""Settings: precedence, refusals that name the place, secrets that stay secret, and complete documentation."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

import pytest
from pydantic import SecretStr

from clearspan.model.errors import InvalidInput
from clearspan.settings import Settings, check_bind, is_loopback, load_settings, settings_table, unknown_variables

ROOT = Path(__file__).resolve().parents[2]
KEY = "a-canary-key-of-the-operator"


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "clearspan.toml"
    path.write_text(text)
    return path


def test_option_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    path = config(tmp_path, "port = 1\npage_size_max = 2\nread_threads = 3\n")
    environ = {"CLEARSPAN_PORT": "11", "CLEARSPAN_PAGE_SIZE_MAX": "12", "CLEARSPAN_CONFIG": "/nowhere"}
    settings = load_settings({"port": 21, "host": None}, config=path, environ=environ)
    assert (settings.port, settings.page_size_max, settings.read_threads) == (21, 12, 3)
    assert settings.host == "127.0.0.1"


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    path = config(tmp_path, 'data = "store"\nprices_file = "/etc/prices.toml"\n')
    settings = load_settings(environ={"CLEARSPAN_CONFIG": str(path)})
    assert settings.data == tmp_path / "store", "a relative path lies beside the file"
    assert settings.prices_file == Path("/etc/prices.toml")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("PORT", "0", 0),
        ("GRPC_PORT", "4317", 4317),
        ("GRPC_PORT", "off", None),
        ("GRPC_PORT", "auto", "auto"),
        ("GRPC_PORT", "", "auto"),
        ("RATE_LIMIT_READ", "10", 10),
        ("BODY_BYTES_MAX", "2 MiB", 2 * 2**20),
        ("BODY_BYTES_MAX", "5000", 5000),
        ("BODY_FIRST_BYTE_S", "2.5", 2.5),
        ("DEMO", "Yes", True),
        ("DEMO", "off", False),
        ("LOG_LEVEL", "debug", "debug"),
        ("API_KEY", KEY, KEY),
        ("PORT", "", 8321),
        ("PORT", "tcp://10.0.0.7:8321", 8321),
        ("LLM_BASE_URL", "http://[::1]:11434/v1", "http://[::1]:11434/v1"),
        ("LLM_API_KEY", KEY, SecretStr(KEY)),
    ],
)
def test_values_are_read(name: str, text: str, value: object) -> None:
    assert getattr(load_settings(environ={f"CLEARSPAN_{name}": text}), name.lower()) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "8321.0"),
        ("PORT", "eighty"),
        ("GRPC_PORT", "on"),
        ("BODY_BYTES_MAX", "2 MB"),
        ("BODY_FIRST_BYTE_S", "nan"),
        ("BODY_FIRST_BYTE_S", "inf"),
        ("DEMO", "maybe"),
        ("LOG_LEVEL", "loud"),
        ("READ_THREADS", "0"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_variable(name: str, text: str) -> None:
    with pytest.raises(InvalidInput, match=f"^CLEARSPAN_{name}: {name.lower()} must be ") as raised:
        load_settings(environ={f"CLEARSPAN_{name}": text})
    assert raised.value.fields == (name.lower(),)
    assert repr(text) in raised.value.message


def test_a_file_with_an_unknown_name_is_refused_with_a_guess(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="Did you mean page_size_max"):
        load_settings(config=config(tmp_path, "page_sizemax = 3"), environ={})


@pytest.mark.parametrize("text", ["port = ", "port = true", "port = 1.5", "[port]", "data = 3", 'data = ""'])
def test_a_wrong_file_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInput, match=r"clearspan\.toml"):
        load_settings(config=config(tmp_path, text), environ={})


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        load_settings(config=tmp_path / "none.toml", environ={})


def test_a_short_key_is_refused_and_no_key_is_ever_repeated() -> None:
    with pytest.raises(InvalidInput, match="at least 16 characters") as raised:
        load_settings(environ={"CLEARSPAN_API_KEY": KEY[:15]})
    assert KEY[:15] not in raised.value.message
    assert KEY not in repr(load_settings(environ={"CLEARSPAN_API_KEY": KEY}))


def test_a_misspelled_variable_is_told() -> None:
    environ = {"CLEARSPAN_PROT": "1", "CLEARSPAN_PORT": "1", "CLEARSPAN_CONFIG": "x", "HOME": "/"}
    assert unknown_variables(environ) == ["CLEARSPAN_PROT"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_loopback_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    check_bind(host, key_exists=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.test", "", "0x7f.1", "127.1"])
def test_other_addresses_need_a_key(host: str) -> None:
    with pytest.raises(InvalidInput, match="Refusing to listen") as raised:
        check_bind(host, key_exists=False)
    assert raised.value.code == "bind_without_key"
    check_bind(host, key_exists=True)


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs" / "settings.md").read_text("utf-8")
    assert settings_table() in page, "docs/settings.md is out of date: put settings_table() into it"
    for item in fields(Settings):
        assert item.metadata["text"].endswith("."), item.name


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/v1",
        "h/v1",
        "https://",
        f"https://user:{KEY}@h/v1",
        f"https://h/v1?key={KEY}",
        "http://h:0",
        "http://[::1",
    ],
)
def test_an_endpoint_that_could_not_be_asked_or_holds_a_secret_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"^CLEARSPAN_LLM_BASE_URL: ") as raised:
        load_settings(environ={"CLEARSPAN_LLM_BASE_URL": url})
    assert KEY not in str(raised.value)


def test_the_endpoints_key_shows_nowhere() -> None:
    settings = load_settings(environ={"CLEARSPAN_LLM_API_KEY": KEY})
    shown = [repr(settings), str(settings), str(asdict(settings)), repr(settings.llm_api_key)]
    assert not [text for text in shown if KEY in text]
    assert settings.llm_api_key is not None
    assert settings.llm_api_key.get_secret_value() == KEY
