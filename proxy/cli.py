"""The `counterfault` command."""

import argparse
import asyncio
import json
import logging
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from proxy import __version__, secret
from proxy.check import summary
from proxy.config import ConfigError, load
from proxy.files import why

FINE, REFUTED, USAGE = 0, 1, 2
_ADMIN = "http://127.0.0.1:9900"
_TOKEN_FILE = "COUNTERFAULT_TOKEN_FILE"  # noqa: S105 - a variable's name


class Refused(Exception):
    """A command could not do what was asked; its text says why."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is 0 fine, 1 refuted, 2 bad usage or configuration."""
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

    for name, action in (("run", _run), ("check", _check)):
        command(name, action).add_argument("directory", type=Path, metavar="DIR")
    for name, action in (("status", _status), ("reload", _reload), ("resume", _resume)):
        _admin_option(command(name, action))
    stop = command("stop", _stop)
    stop.add_argument("name", nargs="?", metavar="NAME", help="without it, everything")
    _admin_option(stop)
    schema = command("schema", _schema)
    schema.add_argument("directory", type=Path, nargs="?", default=Path("config/schema"))
    command("demo", _demo).add_argument(
        "--keep", action="store_true", help="leave it running until ^C"
    )
    return parser


def _admin_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--admin", default=_ADMIN, metavar="URL", help=f"default: {_ADMIN}")
    parser.add_argument(
        "--token-file",
        type=Path,
        default=os.environ.get(_TOKEN_FILE),
        metavar="FILE",
        help=f"with the admin port's token; default: ${_TOKEN_FILE}",
    )


def _run(args: argparse.Namespace) -> int:
    """Run the sidecar that DIR describes."""
    from proxy.serve import serve

    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    return asyncio.run(serve(load(args.directory)))


def _check(args: argparse.Namespace) -> int:
    """Say what is wrong in DIR or, if nothing is, what would happen."""
    print("\n".join(summary(load(args.directory))))
    return FINE


def _status(args: argparse.Namespace) -> int:
    """Show the experiments of a running sidecar."""
    from proxy.status import lines

    print("\n".join(lines(_ask(args, "GET", "/api/experiments"))))
    return FINE


def _reload(args: argparse.Namespace) -> int:
    """Make a running sidecar read its directory again."""
    _ask(args, "POST", "/-/reload")
    print("reloaded")
    return FINE


def _stop(args: argparse.Namespace) -> int:
    """Stop one experiment, or everything (the kill switch)."""
    path = "/api/stop" if args.name is None else f"/api/experiments/{args.name}/stop"
    _ask(args, "POST", path)
    print("everything is stopped" if args.name is None else f"{args.name} is stopped")
    return FINE


def _resume(args: argparse.Namespace) -> int:
    """Lift the kill switch; what it stopped stays stopped."""
    _ask(args, "POST", "/api/resume")
    print("the kill switch is off; raise an experiment's `run` to run it again")
    return FINE


def _schema(args: argparse.Namespace) -> int:
    """Write the JSON Schemas that editors check the YAML against."""
    from proxy.schema import write

    write(args.directory)
    return FINE


def _demo(args: argparse.Namespace) -> int:
    """A shop, its users, and two experiments on them, in about 90 seconds."""
    from proxy.demo import main as demo

    return demo(args.keep)


def _ask(args: argparse.Namespace, method: str, path: str) -> Any:
    """A running sidecar's answer. Raises Refused with its words."""
    admin: str = args.admin
    request = urllib.request.Request(admin.rstrip("/") + path, method=method)
    if args.token_file:
        # Not handed on to wherever a redirect leads.
        request.add_unredirected_header("Authorization", f"Bearer {_token(Path(args.token_file))}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            body = answer.read()
            is_json = answer.headers.get_content_type().endswith("json")
    except urllib.error.HTTPError as e:
        raise Refused(_problem(e)) from e
    except OSError as e:
        raise Refused(f"no sidecar answers at {admin}: {e}") from e
    return json.loads(body) if is_json else body.decode()


def _token(path: Path) -> str:
    try:
        return secret.read(path).decode("ascii")
    except OSError as e:
        raise Refused(f"cannot read {path}: {why(e)}") from e
    except ValueError as e:
        raise Refused(f"cannot use {path}: {e}") from e


def _problem(error: urllib.error.HTTPError) -> str:
    """The words of an RFC 9457 problem."""
    try:
        problem = json.loads(error.read())
        return "\n".join([problem.get("detail", str(error)), *problem.get("errors", ())])
    except ValueError:
        return str(error)


if __name__ == "__main__":
    sys.exit(main())
