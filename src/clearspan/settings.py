"""The settings: one frozen value, read once at start.

Each comes from the first of these that names it: a command-line option, the environment (`CLEARSPAN_PORT`), the TOML
file (`port = 8321`; its path is `--config` or `CLEARSPAN_CONFIG`), the default below. docs/settings.md is made from
this module.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_type_hints
from urllib.parse import urlsplit

from pydantic import SecretStr

from clearspan import faults
from clearspan.files import disk
from clearspan.model.errors import InvalidInput

PREFIX = "CLEARSPAN_"
CONFIG_VARIABLE = PREFIX + "CONFIG"
CLIENT_VARIABLE = PREFIX + "URL"
"""Which server the commands that talk to one mean: no setting, but no typing error either."""
API_KEY_CHARS_MIN = 16
GRPC_PORT = 4317
"""Where exporters expect OTLP over gRPC."""

_BYTES = re.compile(r"(\d+)\s*(?:(K|M|G)iB)?")
_BYTE_UNITS = {None: 1, "K": 2**10, "M": 2**20, "G": 2**30}


def _setting(default: Any, text: str, **bounds: Any) -> Any:
    """A documented field; `bounds` may be min, max, choices, unit and secret."""
    return field(default=default, repr=not bounds.get("secret"), metadata={"text": text, **bounds})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting with its default. Make one with `load_settings`; tests may construct it directly."""

    host: str = _setting(
        "127.0.0.1", "Address to listen on. Anything but a loopback address needs an API key to exist already."
    )
    port: int = _setting(8321, "Port for HTTP; 0 takes a free one.", min=0, max=65535)
    grpc_port: int | Literal["auto"] | None = _setting(
        "auto",
        f"Port for OTLP over gRPC; 0 takes a free one; `off`. `auto` is {GRPC_PORT}, or none, with a warning, when "
        "another program has that.",
        min=0,
        max=65535,
        word="auto",
    )
    public_url: str | None = _setting(
        None, "Base of the links in answers, for a server behind a proxy; else taken from each request."
    )
    data: Path = _setting(Path("data"), "Data directory; made on first start, readable by its owner only.")  # noqa: RUF009
    api_key: str | None = _setting(
        None,
        f"Key with every scope, at least {API_KEY_CHARS_MIN} characters. Only its SHA-256 is stored.",
        secret=True,
    )
    demo: bool = _setting(False, "Load the recorded traces into a project named `demo` on start.")
    log_level: str = _setting("info", "Least severity that is logged.", choices=("debug", "info", "warning", "error"))
    connections_max: int = _setting(1024, "Open connections; more of them wait.", min=1)

    body_bytes_max: int = _setting(32 * 2**20, "Largest request body, as sent.", min=1024, unit="bytes")
    body_unpacked_bytes_max: int = _setting(
        64 * 2**20, "Largest request body after decompression.", min=1024, unit="bytes"
    )
    body_ratio_max: int = _setting(
        250, "Largest ratio of unpacked to sent bytes; judged only above 1 MiB unpacked.", min=1
    )
    body_first_byte_s: float = _setting(
        10.0, "Seconds a client has to send the first byte of its body.", min=0.1, max=600
    )
    body_bytes_per_s_min: int = _setting(16 * 1024, "Average rate a client must hold after that.", min=0, unit="bytes")
    attribute_bytes_max: int = _setting(
        8 * 2**20, "Largest single attribute value; a span with a larger one is refused.", min=1024, unit="bytes"
    )
    span_attributes_max: int = _setting(10_000, "Most attributes of one span; a span with more is refused.", min=1)
    attachment_bytes_max: int = _setting(
        20 * 2**20,
        "Largest attachment of a LangSmith run; a larger one is refused, its run is not.",
        min=1,
        unit="bytes",
    )
    attachment_link_s: int = _setting(
        3600,
        "Seconds that a link to an attachment, which needs no key, is good for.",
        min=1,
        max=604_800,
        unit="seconds",
    )
    nesting_depth_max: int = _setting(48, "Deepest nesting of lists and maps in an attribute.", min=1, max=64)

    queue_bytes_max: int = _setting(
        128 * 2**20, "Bytes of requests held at once; above it the answer is 503.", min=2**20, unit="bytes"
    )
    commit_spans_max: int = _setting(
        2000, "Most spans of one commit, which takes whatever has arrived while the last one ran.", min=1
    )
    wal_checkpoint_bytes: int = _setting(
        16 * 2**20,
        "Size of traces.db's write-ahead log that starts a checkpoint, in a thread beside the writer.",
        min=2**20,
        unit="bytes",
    )
    reserve_bytes: int = _setting(
        64 * 2**20,
        "Size of the file `reserve` in the data directory, given up when a deletion meets a full disk; 0 keeps none.",
        min=0,
        unit="bytes",
    )
    disk_free_min_bytes: int = _setting(
        128 * 2**20,
        "With less free space than this in the data directory, ingest is refused with 503, so that deletions go on.",
        min=0,
        unit="bytes",
    )
    read_threads: int = _setting(4, "Threads that read, each with a connection of its own.", min=1, max=64)

    read_seconds_max: float = _setting(
        20.0, "Seconds one list, summary or choice of traces to delete may take; then it is ended with 400.", min=0.001
    )

    page_size_max: int = _setting(1000, "Largest page of a list.", min=1, max=1000)
    delete_traces_max: int = _setting(
        1000, "Most traces of one synchronous bulk delete; with more, nothing is deleted.", min=1
    )
    delete_wait_s: float = _setting(
        10.0, "Seconds a synchronous delete waits for the proof of erasure before it answers.", min=0, max=600
    )

    not_before_days_max: int = _setting(
        366,
        "Days that `not_before` of a deletion may lie ahead: until then its traces are hidden and not erased.",
        min=1,
        max=36_500,
    )

    holds_active_max: int = _setting(1000, "Most holds of one organisation that are not released.", min=1)
    plans_open_max: int = _setting(
        100, "Most unexpired plan tokens of one key; another preview is refused until one is used or expires.", min=1
    )

    annotation_wait_days: int = _setting(
        7,
        "Days that feedback, scores and notes wait for the trace they are about; then they are removed and counted.",
        min=1,
        max=3650,
    )

    strict_windows: bool = _setting(
        False, "Refuse deletions by filter that leave out `start_time`, instead of taking the hour before `end_time`."
    )

    rate_limit_ingest: int | None = _setting(None, "Ingest requests a minute and key, or `off`.", min=1)
    rate_limit_read: int | None = _setting(None, "Reading requests a minute and key, or `off`.", min=1)
    rate_limit_delete: int | None = _setting(None, "Deleting requests a minute and key, or `off`.", min=1)
    rate_limit_wrong_keys: int | None = _setting(
        600, "Requests with unknown keys a minute and client address, or `off`.", min=1
    )

    prices_file: Path | None = _setting(None, "TOML file of your own prices; they come first.")  # noqa: RUF009

    llm_base_url: str | None = _setting(
        None,
        "Endpoint that experiments ask for completions and judgements, in OpenAI's form, such as "
        "`https://api.example.com/v1`. Without one there are none.",
    )
    llm_api_key: SecretStr | None = _setting(  # noqa: RUF009
        None, "Key for that endpoint. Never shown, logged or sent elsewhere.", secret=True
    )
    llm_model: str | None = _setting(None, "Model that is asked where an evaluator or a step names none.")
    llm_provider: str | None = _setting(
        None, "Whose prices that endpoint's models have, such as `openai`; else the model's name decides."
    )
    llm_allow_private: bool = _setting(
        False, "Let that endpoint, and no other, be on a private address, at any port, or without TLS."
    )
    llm_timeout_s: float = _setting(60.0, "Seconds one request to that endpoint may take.", min=0.1, max=3600)
    llm_retries_max: int = _setting(
        4,
        "Times such a request is sent again on 408, 409, 429 and 5xx, after `Retry-After` or a growing pause.",
        max=20,
    )


def load_settings(
    options: Mapping[str, Any] | None = None,
    *,
    config: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Read the settings from their four sources.

    Args:
        options: command-line options by setting name; None as a value means not given.
        config: path of the TOML file; else `CLEARSPAN_CONFIG`; else there is none.
    Raises:
        InvalidInput: an unknown name in the file or options, or a value that cannot be read. The message says
            where it was found and never repeats a secret.
    """
    values = _from_file(config or _config_from(environ))
    for name in _documented():
        text = environ.get(variable_of(name), "")
        if text and not _is_service_link(name, text):
            values[name] = _read(name, text, variable_of(name))
    for name, value in (options or {}).items():
        if value is not None:
            values[name] = _read(name, value, "--" + name.replace("_", "-"))
    return Settings(**values)


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """`CLEARSPAN_…` variables that set nothing, sorted: worth a warning, as they are often a typing error."""
    known = {variable_of(name) for name in _documented()}
    known |= {CONFIG_VARIABLE, CLIENT_VARIABLE, faults.VARIABLE, disk.VARIABLE}
    return sorted(name for name in environ if name.startswith(PREFIX) and name not in known)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to `host`. A name other than `localhost` counts as no:
    what it resolves to may change."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_bind(host: str, *, key_exists: bool) -> None:
    """Refuse to serve other machines before there is a key.

    Args:
        key_exists: whether a valid key is stored or configured.
    Raises:
        InvalidInput: with what to do about it.
    """
    if key_exists or is_loopback(host):
        return
    raise InvalidInput(
        f"Refusing to listen on {host}: it can be reached from other machines and no API key exists. Set "
        f"{variable_of('api_key')}, or make a key first with `clearspan keys create`.",
        code="bind_without_key",
        fields=("host",),
    )


def settings_table() -> str:
    """The Markdown table of docs/settings.md: one line a setting, in the order of the class."""
    lines = ["| Setting | Variable | Default | Meaning |", "| --- | --- | --- | --- |"]
    for name, item in _documented().items():
        text = item.metadata["text"]
        if choices := item.metadata.get("choices"):
            text += " One of " + ", ".join(f"`{choice}`" for choice in choices) + "."
        lines.append(f"| `{name}` | `{variable_of(name)}` | {_render(item)} | {text} |")
    return "\n".join(lines) + "\n"


@cache
def _documented() -> Mapping[str, Field[Any]]:
    return MappingProxyType({item.name: item for item in fields(Settings)})


@cache
def _types() -> Mapping[str, Any]:
    return get_type_hints(Settings)


def _config_from(environ: Mapping[str, str]) -> Path | None:
    text = environ.get(CONFIG_VARIABLE, "")
    return Path(text) if text else None


def _from_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"The settings file {path} cannot be read: {error}") from error
    values = {name: _read(name, value, str(path)) for name, value in found.items()}
    for name in ("data", "prices_file"):
        # A relative path in a file means beside the file, whatever directory the server was started in.
        if isinstance(values.get(name), Path):
            values[name] = path.parent / values[name]
    return values


def _is_service_link(name: str, text: str) -> bool:
    # Kubernetes sets CLEARSPAN_PORT=tcp://10.0.0.7:8321 in every pod beside a service named "clearspan".
    return name == "port" and text.startswith("tcp://")


def _read(name: str, value: Any, origin: str) -> Any:
    item = _documented().get(name)
    if item is None:
        near = difflib.get_close_matches(name, _documented(), n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InvalidInput(f"{origin}: there is no setting {name!r}.{hint}", fields=(name,))
    try:
        parsed = _parse(value, _types()[name], item.metadata)
    except ValueError as error:
        shown = "" if item.metadata.get("secret") else f", not {value!r}"
        raise InvalidInput(f"{origin}: {name} must be {error}{shown}.", fields=(name,)) from None
    if name == "llm_base_url":
        _check_endpoint(parsed, origin)
    if name == "api_key" and isinstance(parsed, str) and len(parsed) < API_KEY_CHARS_MIN:
        raise InvalidInput(f"{origin}: api_key must have at least {API_KEY_CHARS_MIN} characters.", fields=(name,))
    return parsed


def _check_endpoint(url: str, origin: str) -> None:
    """Refuse an address that could not be asked, or that holds a secret: addresses are shown in errors and logs."""
    try:
        parts = urlsplit(url)
        is_fit = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_fit = False
    if not is_fit or "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidInput(
            f"{origin}: llm_base_url must be an http or https address without user, query and fragment.",
            fields=("llm_base_url",),
        )


def _parse(value: Any, kind: Any, bounds: Mapping[str, Any]) -> Any:
    """`value` as the field's type; the ValueError's text completes "must be …"."""
    if "word" in bounds:
        if value == bounds["word"]:
            return value
        kind = int | None
    if kind == int | None:
        if value in ("off", None):
            return None
        kind = int
    if kind is bool:
        return _parse_bool(value)
    if kind is int or kind is float:
        return _parse_number(value, kind, bounds)
    if not isinstance(value, (str, Path)) or not str(value):
        raise ValueError("text")
    if kind == SecretStr | None:
        return SecretStr(str(value))
    if kind == Path or kind == Path | None:
        return Path(value)
    if "choices" in bounds and value not in bounds["choices"]:
        raise ValueError("one of " + ", ".join(bounds["choices"]))
    return value


def _parse_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = value.lower() if isinstance(value, str) else None
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    raise ValueError("true or false")


def _parse_number(value: Any, kind: type[int] | type[float], bounds: Mapping[str, Any]) -> int | float:
    low, high = bounds.get("min", 0), bounds.get("max")
    words = f"from {low} to {high}" if high is not None else f"of at least {low}"
    refusal = ValueError(f"a {'whole ' if kind is int else ''}number {words}")
    number: int | float
    if isinstance(value, str) and bounds.get("unit") == "bytes" and (match := _BYTES.fullmatch(value.strip())):
        number = int(match[1]) * _BYTE_UNITS[match[2]]
    elif isinstance(value, bool) or not isinstance(value, (str, int, kind)):
        raise refusal
    else:
        try:
            number = kind(value)
        except ValueError:
            raise refusal from None
    # Written so that NaN fails it.
    if not (low <= number and (high is None or number <= high)):
        raise refusal
    return number


def _render(item: Field[Any]) -> str:
    value: Any = item.default
    if value is None:
        return "`off`" if _types()[item.name] == int | None else "none"
    if item.metadata.get("unit") == "bytes":
        for size, unit in ((2**20, "MiB"), (2**10, "KiB")):
            if value and value % size == 0:
                return f"`{value // size} {unit}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
