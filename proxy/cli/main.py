"""The `counterfault` command."""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from counterfault import __version__
from counterfault.proxy.cli.admin_client import AdminClient, Refused
from counterfault.proxy.config.files import reason_of
from counterfault.proxy.config.loader import load
from counterfault.proxy.config.model import ConfigError

if TYPE_CHECKING:
    from counterfault.proxy.models.run_record import RunRecord

FINE, USAGE = 0, 2
_FORMATS = ("text", "json", "junit", "html")
_ADMIN = "http://127.0.0.1:9900"
_TOKEN_FILE = "COUNTERFAULT_TOKEN_FILE"  # noqa: S105 - a variable's name


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns the exit code: 0 fine or held, 1 refuted, 2 bad usage, 3 inconclusive or invalid.
    """
    args = _parser().parse_args(argv)
    try:
        code: int = args.command(args)
    except ConfigError as e:
        print(e, file=sys.stderr)
        return USAGE
    except Refused as e:
        print(f"counterfault: {e}", file=sys.stderr)
        return USAGE
    except (KeyboardInterrupt, BrokenPipeError):
        return FINE
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="counterfault", description="Would your users notice if this dependency failed?"
    )
    parser.add_argument("--version", action="version", version=f"counterfault {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, action: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        text = (action.__doc__ or "").strip()
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=action)
        return added

    run, check = command("run", _run), command("check", _check)
    for added in (run, check):
        added.add_argument("directory", type=Path, metavar="DIR")
    done = "end with the experiments; the exit code is the worst verdict"
    run.add_argument("--until-done", action="store_true", help=done)
    status = command("status", _status)
    status.add_argument("--watch", action="store_true", help="keep it up to date until ^C")
    for added in (status, command("reload", _reload), command("resume", _resume)):
        _admin_option(added)
    _report_options(command("report", _report))
    stop = command("stop", _stop)
    stop.add_argument("name", nargs="?", metavar="NAME", help="without it, everything")
    _admin_option(stop)
    schema = command("schema", _schema)
    schema.add_argument("directory", type=Path, nargs="?", default=Path("config/schema"))
    command("demo", _demo).add_argument(
        "--keep", action="store_true", help="leave it running until ^C"
    )
    return parser


def _admin_option(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """The group may have other places to ask instead."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--admin", default=_ADMIN, metavar="URL", help=f"default: {_ADMIN}")
    parser.add_argument(
        "--token-file",
        type=Path,
        default=os.environ.get(_TOKEN_FILE),
        metavar="FILE",
        help=f"with the admin port's token; default: ${_TOKEN_FILE}",
    )
    return source


def _report_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--format", choices=_FORMATS, default="text", help="default: text")
    parser.add_argument("--run", type=int, metavar="N", help="a past run; default: the last one")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: stdout")
    asked = "read the history there, whether a sidecar runs or not"
    _admin_option(parser).add_argument("--state-dir", type=Path, metavar="DIR", help=asked)


def _run(args: argparse.Namespace) -> int:
    """Run the sidecar that DIR describes."""
    from counterfault.proxy.cli.run import serve

    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    return asyncio.run(serve(load(args.directory), until_done=args.until_done))


def _check(args: argparse.Namespace) -> int:
    """Print the mistakes in DIR or, if there are none, what would happen."""
    from counterfault.proxy.cli.check import summary
    from counterfault.proxy.cli.request_rates import present_rates

    config = load(args.directory)
    print("\n".join(summary(config, present_rates(config))))
    return FINE


def _status(args: argparse.Namespace) -> int:
    """Show the experiments of a running sidecar."""
    from counterfault.proxy.cli.status import lines, watch
    from counterfault.proxy.models.overview import Overview

    def look() -> str:
        return "\n".join(lines(_client(args).get("/api/experiments", Overview)))

    if args.watch:
        watch(look)
    print(look())
    return FINE


def _report(args: argparse.Namespace) -> int:
    """Print the report of a run; the exit code is its verdict."""
    from counterfault.proxy.report import FORMATS, exit_code

    record = _recorded(args) if args.state_dir else _reported(args)
    said = FORMATS[args.format].render(record, None)
    try:
        if args.output is None:
            sys.stdout.write(said)
        else:
            args.output.write_text(said, encoding="utf-8")
    except OSError as e:
        raise Refused(f"cannot write {args.output}: {reason_of(e)}") from e
    return exit_code(record.verdict)


def _recorded(args: argparse.Namespace) -> "RunRecord":
    from counterfault.proxy.runs.history import History, HistoryError
    from counterfault.proxy.runs.record import NotRecorded, recorded

    try:
        with closing(History(args.state_dir, reading=True)) as history:
            return recorded(history, args.name, args.run)
    except (HistoryError, NotRecorded) as e:
        raise Refused(str(e)) from e


def _reported(args: argparse.Namespace) -> "RunRecord":
    from counterfault.proxy.models.run_record import RunRecord

    which = "" if args.run is None else f"&run={args.run}"
    path = f"/api/experiments/{quote(args.name, safe='')}/report?format=json{which}"
    return _client(args).get(path, RunRecord)


def _reload(args: argparse.Namespace) -> int:
    """Make a running sidecar read its directory again."""
    _client(args).ask("POST", "/-/reload")
    print("reloaded")
    return FINE


def _stop(args: argparse.Namespace) -> int:
    """Stop one experiment, or everything (the kill switch)."""
    path = "/api/stop" if args.name is None else f"/api/experiments/{args.name}/stop"
    _client(args).ask("POST", path)
    print("everything is stopped" if args.name is None else f"{args.name} is stopped")
    return FINE


def _resume(args: argparse.Namespace) -> int:
    """Lift the kill switch; what it stopped stays stopped."""
    _client(args).ask("POST", "/api/resume")
    print("the kill switch is off; raise an experiment's `run` to run it again")
    return FINE


def _schema(args: argparse.Namespace) -> int:
    """Write the JSON Schemas that editors check the YAML against."""
    from counterfault.proxy.config.json_schema import write_schemas

    write_schemas(args.directory)
    return FINE


def _demo(args: argparse.Namespace) -> int:
    """Show a shop, its users, and two experiments on them, in about 90 seconds."""
    from counterfault.proxy.demo import main as demo

    return demo(args.keep)


def _client(args: argparse.Namespace) -> AdminClient:
    return AdminClient(args.admin, args.token_file and Path(args.token_file))


if __name__ == "__main__":
    sys.exit(main())
