"""`python -m engarde.embedded`: the shell's way to the embedded services."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engarde.embedded import daemon, session, up
from engarde.embedded.bigquery import install as bigquery_install
from engarde.embedded.errors import StartFailed
from engarde.embedded.llm import install as model_install
from engarde.embedded.paths import DataDir

Run = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str]) -> int:
    """Run one subcommand and return its exit code."""
    arguments = _parser().parse_args(argv)
    run: Run = arguments.run
    try:
        return run(arguments)
    except StartFailed as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def run_up(arguments: argparse.Namespace) -> int:
    """Run the whole platform in the foreground."""
    return up.Platform(DataDir.at(arguments.data_dir), arguments.port, _say).run()


def run_command(arguments: argparse.Namespace) -> int:
    """Run a command with the services' variables, PostgreSQL's programs on its PATH, and return its exit code."""
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise StartFailed("Name a command: python -m engarde.embedded run -- COMMAND ...")
    services = session.needed(session.environment())
    with session.join(arguments.data_dir, services, wait_for_end=True) as settings:
        client = session.client_environment(arguments.data_dir, services)
        model = session.running_model(arguments.data_dir, session.environment())
        environ = {**os.environ, **client, **model, **settings, session.JOINED: "joined"}
        return _run_in_foreground(command, environ)


def _run_in_foreground(command: Sequence[str], environ: dict[str, str]) -> int:
    """Run a command as a shell would: it gets Ctrl-C itself, and SIGTERM is passed on."""
    try:
        process = subprocess.Popen(command, env=environ)
    except OSError as error:
        raise StartFailed(f"{command[0]}: {error.strerror}") from error
    signal.signal(signal.SIGTERM, lambda number, _frame: process.send_signal(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = process.wait()
    return code if code >= 0 else 128 - code


def run_status(arguments: argparse.Namespace) -> int:
    """Show what runs; exit code 3 when nothing does."""
    state = session.running_state(DataDir.at(arguments.data_dir))
    if arguments.json:
        _say(json.dumps(state or {"services": {}}))
    elif not state:
        _say("No embedded service runs.")
    else:
        _say(f"supervisor  process {state['pid']}")
        for name, service in state["services"].items():
            _say(_status_line(name, service))
    return 0 if state else 3


def _status_line(name: str, service: dict[str, Any]) -> str:
    where = next((url for key, url in service["settings"].items() if key.endswith(("_URL", "_HOST"))), "")
    where = re.sub("//[^@/]*@", "//", where)  # no passwords on a screen
    restarts = f", started again {service['restarts']} times" if service["restarts"] else ""
    return f"{name:<11} {service['phase']}, process {service['pid']}{restarts}  {where}{service['error']}"


def run_stop(arguments: argparse.Namespace) -> int:
    """Stop the supervisor and its services."""
    stopped = daemon.stop(DataDir.at(arguments.data_dir))
    _say("The embedded services have stopped." if stopped else "No embedded service runs.")
    return 0


def run_install(_arguments: argparse.Namespace) -> int:
    """Install what has an environment of its own, unless it is there already."""
    try:
        bigquery_install.install(_say)
    except subprocess.CalledProcessError as error:
        raise StartFailed(f"The BigQuery emulator was not installed: {error}") from error
    _install_model()
    return 0


def _install_model() -> None:
    """Install the local language model if it is wanted; the platform runs without it as well."""
    if absence := session.why_no_model(session.environment()):
        _say(f"No local language model is installed: {absence}.")
        return
    try:
        model_install.install(_say)
    except StartFailed as error:
        _say(f"The local language model was not installed, and the platform runs without it: {error}")


def run_daemon(arguments: argparse.Namespace) -> int:
    """Supervise the services until nobody uses them, detached from whoever started it."""
    if os.fork():
        os._exit(0)
    data = DataDir.at(arguments.data_dir)
    daemon.want(data, filter(None, arguments.services.split(",")))
    daemon.Daemon(data).run()
    return 0


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m engarde.embedded", description="Embedded services and `make up`.")
    commands = top.add_subparsers(title="commands", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--data-dir", type=Path, default=session.data_dir(session.environment()), help="default: DATA_DIR or .data"
    )

    def add(name: str, run: Run, text: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, parents=[shared])
        command.set_defaults(run=run)
        return command

    port = session.environment().get("PORT") or up.DEFAULT_PORT
    add("up", run_up, "run the whole platform").add_argument(
        "--port", type=int, default=port, help="default: PORT or 8000"
    )
    add("run", run_command, "run a command with the services").add_argument("command", nargs=argparse.REMAINDER)
    add("status", run_status, "show what runs").add_argument("--json", action="store_true")
    add("stop", run_stop, "stop services that were left running")
    add("install", run_install, "install the BigQuery emulator and the language model beside the platform")
    add("daemon", run_daemon, "supervise services (the other commands start it)").add_argument("--services", default="")
    return top


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
