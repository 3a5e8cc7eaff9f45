"""Commands that talk to a server: where it is, with which key, and what its refusals mean for a shell.

Exit status: 0 done, 1 refused or failed, 2 not understood or no server there, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

import clearspan
from clearspan.cli.output import fail, printable
from clearspan.settings import is_loopback

DEFAULT_URL = "http://127.0.0.1:8321"
TIMEOUT_S = 60.0

UrlOption = Annotated[str, typer.Option("--url", envvar="CLEARSPAN_URL", help="The server.")]
KeyOption = Annotated[
    str | None,
    typer.Option("--key", envvar="CLEARSPAN_API_KEY", help="API key; better in the environment.", show_default=False),
]
KeyFileOption = Annotated[
    Path | None, typer.Option("--key-file", help="File that holds the API key.", show_default=False)
]

Json = dict[str, Any]


class RemoteFailure(Exception):
    """A call that did not succeed.

    Attributes:
        exit_status: 1 the server refused or failed, 2 there is no such server or the command was wrong.
        code: the server's stable name for it, if it said one.
        status: of the answer, if there was one.
    """

    def __init__(self, message: str, *, exit_status: int = 1, code: str | None = None, status: int | None = None):
        super().__init__(message)
        self.exit_status = exit_status
        self.code = code
        self.status = status


def transport_for(url: str) -> httpx.BaseTransport | None:
    """How requests travel; None: over the network. Tests put a server of their own here."""
    return None


class Remote:
    """A server's API: each call answers or raises RemoteFailure with one clear line."""

    def __init__(self, url: str, key: str) -> None:
        """Raises RemoteFailure for an address that cannot be one."""
        try:
            parsed = httpx.URL(url)
            if parsed.scheme not in ("http", "https") or not parsed.host:
                raise httpx.InvalidURL("no http:// or https:// address")
            self._http = httpx.Client(
                base_url=parsed,
                headers={"Authorization": f"Bearer {key}", "User-Agent": f"clearspan/{clearspan.__version__}"},
                timeout=TIMEOUT_S,
                transport=transport_for(url),
                # A proxy for the outside world must not be asked for this machine's own server.
                trust_env=not is_loopback(parsed.host),
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise RemoteFailure(f"{printable(url)} is not the address of a server: {error}", exit_status=2) from None
        self.url = url

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        """The JSON under an address; parameters that are None are left out."""
        given = {key: value for key, value in params.items() if value is not None}
        return self.call("GET", path, params=given or None)  # an empty dict would strip the query that `path` has

    def post(self, path: str, body: Json | None = None) -> Any:
        return self.call("POST", path, json={} if body is None else body)

    def call(self, method: str, path: str, **rest: Any) -> Any:
        """Any call; its JSON. Raises RemoteFailure."""
        answer = self.send(method, path, **rest)
        try:
            return answer.json()
        except ValueError:
            raise RemoteFailure(f"{self.url}{path} did not answer with JSON: is it a Clearspan server?") from None

    def text(self, path: str) -> str:
        """The text under an address. Raises RemoteFailure."""
        return self.send("GET", path).text

    def send(self, method: str, path: str, **rest: Any) -> httpx.Response:
        """Any call; a success. Raises RemoteFailure."""
        try:
            answer = self._http.request(method, path, **rest)
        except httpx.TimeoutException:
            raise RemoteFailure(f"{self.url} did not answer within {TIMEOUT_S:.0f} s.", exit_status=2) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RemoteFailure(
                f"{self.url} cannot be reached: {error or type(error).__name__}", exit_status=2
            ) from None
        if answer.is_success:
            return answer
        raise refusal(answer)

    def pages(self, path: str, **params: Any) -> Iterator[Json]:
        """Every item of a list, page after page."""
        cursor: str | None = None
        while True:
            page = self.get(path, **params, cursor=cursor)
            yield from page["data"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return


def refusal(answer: httpx.Response) -> RemoteFailure:
    """What the server said, in one line: `detail` of problem+json or of a dialect's own shape."""
    try:
        said = answer.json()
    except ValueError:
        said = None
    if not isinstance(said, dict):
        return RemoteFailure(f"{answer.request.url.path} answered {answer.status_code}.", status=answer.status_code)
    detail, code = said.get("detail") or said.get("title") or f"status {answer.status_code}", said.get("code")
    named = f" ({code})" if isinstance(code, str) else ""
    return RemoteFailure(
        printable(f"{detail}{named}"), code=code if isinstance(code, str) else None, status=answer.status_code
    )


def find_key(key: str | None, key_file: Path | None) -> str:
    """The API key of a command. Raises RemoteFailure when there is none."""
    if key_file is not None:
        try:
            key = key_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RemoteFailure(f"The key file {key_file} cannot be read: {error}", exit_status=2) from None
    if not key:
        raise RemoteFailure(
            "No API key: set CLEARSPAN_API_KEY or give --key-file. The first start of a server wrote one to the file "
            "owner-key in its data directory.",
            exit_status=2,
        )
    if not key.isascii() or not key.isprintable():
        raise RemoteFailure("The API key holds characters that no key has.", exit_status=2)
    return key


@contextmanager
def open_remote(url: str, key: str | None, key_file: Path | None) -> Iterator[Remote]:
    """A server for the length of a command; failures end the command with a line and its status."""
    try:
        remote = Remote(url.rstrip("/"), find_key(key, key_file))
        try:
            yield remote
        finally:
            remote.close()
    except RemoteFailure as failure:
        raise fail(str(failure), failure.exit_status) from None
