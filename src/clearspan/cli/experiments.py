"""`clearspan experiments`: list experiments, and compare two or more of them item by item."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

import typer

from clearspan.cli.output import JsonOption, print_json, print_table, printable
from clearspan.cli.remote import DEFAULT_URL, KeyFileOption, KeyOption, Remote, RemoteFailure, UrlOption, open_remote

app = typer.Typer(help="List experiments, and compare them item by item.", no_args_is_help=True)

Json = dict[str, Any]
_PAGE = 100


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="Most to list.")] = 200,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List experiments, newest first."""
    with open_remote(url, key, key_file) as remote:
        rows = list(islice(_listed(remote), limit))
    if as_json:
        print_json({"data": rows})
        return
    print_table(
        ["id", "name", "status", "progress", "dataset", "created_at"],
        [
            [
                printable(row["id"]),
                printable(row["name"]),
                printable(row["status"]),
                _percent(row.get("progress")),
                printable(row.get("dataset_name") or row.get("dataset_id")),
                printable(row["created_at"]),
            ]
            for row in rows
        ],
    )


@app.command("compare")
def compare(
    experiments: Annotated[list[str], typer.Argument(metavar="A B…", help="Ids; the first is the baseline.")],
    evaluator: Annotated[list[str] | None, typer.Option(help="Only these scores; may be given again.")] = None,
    verdict: Annotated[
        str | None, typer.Option(help="Only items that are regressed, missing, unchanged or improved.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Most items to list.")] = 20,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare experiments with the first of them: means with intervals, then items, regressions first."""
    with open_remote(url, key, key_file) as remote:
        if len(experiments) < 2:
            raise RemoteFailure(
                "Two experiments are needed: the baseline, and what is compared with it.", exit_status=2
            )
        told = _compared(remote, experiments, evaluator, verdict, limit)
    if as_json:
        print_json(told)
        return
    _print_sides(told)
    typer.echo()
    _print_measures(told)
    typer.echo()
    _print_items(told)


def _listed(remote: Remote) -> Any:
    page = 1
    while True:
        found = remote.get("/api/v2/experiments/list/", page=page, page_size=_PAGE)
        yield from found["results"]
        if not found.get("next"):
            return
        page += 1


def _compared(
    remote: Remote, experiments: list[str], evaluator: list[str] | None, verdict: str | None, limit: int
) -> Json:
    """The comparison with up to `limit` items, of as many pages as that takes."""
    query = {"experiments": experiments, "evaluator": evaluator or None, "verdict": verdict}
    told: Json = remote.get("/v1/comparisons", **query, limit=min(max(limit, 1), 200))
    cursor = told["next_cursor"]
    while cursor is not None and len(told["data"]) < limit:
        page = remote.get("/v1/comparisons", **query, limit=min(limit - len(told["data"]), 200), cursor=cursor)
        told["data"] += page["data"]
        cursor = page["next_cursor"]
    return told | {"data": told["data"][:limit], "next_cursor": cursor}


def _print_sides(told: Json) -> None:
    columns = ("items", "missing", "results", "failed", "waiting", "without_key")
    print_table(
        ["", "experiment", "name", "status", *(name.replace("_", " ") for name in columns)],
        [
            [
                "baseline" if number == 0 else f"#{number}",
                printable(each["id"]),
                printable(each["name"]),
                printable(each["status"]),
                *(printable(each[name]) for name in columns),
            ]
            for number, each in enumerate(told["experiments"])
        ],
    )


def _print_measures(told: Json) -> None:
    rows = []
    for measure in told["measures"]:
        unit = {"cost": " (USD)", "latency": " (s)"}.get(measure["kind"], "")
        better = "less" if measure["direction"] == "minimize" else "more"
        for number, each in enumerate(measure["differences"], 1):
            rows.append(
                [
                    printable(measure["name"]) + unit,
                    f"#{number}",
                    better if measure["direction_is_said"] else f"{better}?",
                    _figure(each["baseline_mean"]),
                    _figure(each["mean"]),
                    _figure(each["difference"], signed=True),
                    _interval(each["interval"]),
                    printable(each["n"]),
                    printable(each["improved"]),
                    printable(each["regressed"]),
                    f"{each['missing_baseline']:,} / {each['missing']:,} / {each['missing_both']:,}",
                ]
            )
    headings = ["measure", "", "better", "baseline", "mean", "difference", "interval", "n", "improved", "regressed"]
    print_table([*headings, "missing baseline / it / both"], rows)


def _print_items(told: Json) -> None:
    counts = ", ".join(f"{count:,} {verdict}" for verdict, count in told["verdicts"].items())
    typer.echo(f"{told['items']:,} items: {counts}.")
    if not told["data"]:
        return
    print_table(
        ["item", "verdict", "scores", "input"],
        [
            [printable(each["comparison_key"]), each["verdict"], _scores(each), _short(each["input"])]
            for each in told["data"]
        ],
    )
    if told["next_cursor"] is not None:
        typer.echo("There are more items: --limit lists more of them, --json everything about them.")


def _scores(item: Json) -> str:
    """`exact 1 → 0` of each score, one value an experiment."""
    sides = item["experiments"]
    names = sorted({name for side in sides if side is not None for name in side["scores"]})
    return "; ".join(
        f"{printable(name)} "
        + " → ".join(_figure(None if side is None else side["scores"].get(name)) for side in sides)
        for name in names
    )


def _figure(value: float | None, *, signed: bool = False) -> str:
    """A number in four digits; what is missing is a dash and not 0."""
    if value is None:
        return "–"
    return f"{value:+.4g}" if signed else f"{value:.4g}"


def _interval(found: Json | None) -> str:
    return "–" if found is None else f"{found['low']:+.4g} to {found['high']:+.4g} ({found['level']:.0%})"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} %"


def _short(text: str | None, length: int = 60) -> str:
    if text is None:
        return "–"
    told = printable(text.replace("\n", " "))
    return told if len(told) <= length else f"{told[: length - 1]}…"
