"""`autoglm deploy`: check a Kubernetes cluster, install the Helm chart on it, watch it come up, look after it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm_client.deploy.errors import DeployError

if TYPE_CHECKING:
    from autoglm_client.deploy.session import Session

_RELEASE, _TIMEOUT_S = "phone", 1800


def main(argv: list[str]) -> int:
    """Exit status: 0 done and ready, 1 failed (one sentence on stderr) or not ready, 2 wrong usage, 130 interrupted."""
    options = _parse(argv)
    # the kubernetes client takes a second to load, which --help need not wait for
    from autoglm_client.deploy.session import open_session

    try:
        session = open_session(options.kubeconfig, options.context, options.release, options.namespace)
        return _VERBS[options.verb](session, options)
    except DeployError as error:
        print(f"autoglm deploy: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("autoglm deploy: interrupted; `autoglm deploy status` says how far it is.", file=sys.stderr)
        return 130


def _preflight(session: Session, options: argparse.Namespace) -> int:
    from autoglm_client.deploy.findings import Level, count, print_findings, verdict

    findings = session.preflight(options.chart, options.values, options.set)
    if options.json:
        print(json.dumps([finding.to_json() for finding in findings], indent=2))
    else:
        print(f"preflight of release {session.target.release} in namespace {session.target.namespace}\n")
        print_findings(findings, sys.stdout)
        print(f"\n{verdict(findings)}")
    return 1 if count(findings, Level.FAILURE) else 0


def _install(session: Session, options: argparse.Namespace) -> int:
    session.install(
        options.chart,
        options.values,
        options.set,
        timeout_s=options.timeout,
        waits=not options.no_wait,
        checks=not options.skip_preflight,
        undoes_failure=options.rollback_on_failure,
    )
    return 0


def _upgrade(session: Session, options: argparse.Namespace) -> int:
    session.upgrade(
        options.chart,
        options.values,
        options.set,
        resets_values=options.reset_values,
        timeout_s=options.timeout,
        waits=not options.no_wait,
        checks=not options.skip_preflight,
        undoes_failure=options.rollback_on_failure,
    )
    return 0


def _status(session: Session, options: argparse.Namespace) -> int:
    from autoglm_client.deploy.status import print_status, read_status

    status = read_status(session.cluster, session.helm, session.target, sys.stdout)
    if options.json:
        print(json.dumps(status.to_json(), indent=2))
    else:
        print_status(status, session.target, sys.stdout)
    return 0 if status.is_ready else 1


def _history(session: Session, options: argparse.Namespace) -> int:
    from autoglm_client.deploy.status import current_revision, print_history

    current_revision(session.helm, session.target)  # says so where there is none
    print_history(session.helm.history(), sys.stdout)
    return 0


def _rollback(session: Session, options: argparse.Namespace) -> int:
    session.rollback(options.revision, timeout_s=options.timeout, waits=not options.no_wait)
    return 0


def _logs(session: Session, options: argparse.Namespace) -> int:
    from autoglm_client.deploy.logs import LogQuery, show_logs

    query = LogQuery(component=options.component, tail=options.tail, follow=options.follow, previous=options.previous)
    show_logs(session.cluster, session.target, query, sys.stdout)
    return 0


def _test(session: Session, options: argparse.Namespace) -> int:
    session.test(timeout_s=options.timeout)
    return 0


def _uninstall(session: Session, options: argparse.Namespace) -> int:
    target = session.target
    if not options.yes:
        if not sys.stdin.isatty():
            raise DeployError("nobody is there to ask: --yes uninstalls without asking.")
        answer = input(f"uninstall {target.release} from {target.namespace} ({session.cluster.context})? [y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            return 1
    session.uninstall(timeout_s=options.timeout)
    return 0


_VERBS: Mapping[str, Callable[[Session, argparse.Namespace], int]] = {
    "preflight": _preflight,
    "install": _install,
    "upgrade": _upgrade,
    "status": _status,
    "history": _history,
    "rollback": _rollback,
    "logs": _logs,
    "test": _test,
    "uninstall": _uninstall,
}


def _parse(argv: list[str]) -> argparse.Namespace:
    common = argparse.ArgumentParser(add_help=False)
    add = common.add_argument
    add("--release", default=_RELEASE, metavar="NAME", help="the Helm release (default: %(default)s)")
    add("-n", "--namespace", metavar="NAME", help="default: the context's own")
    add("--kubeconfig", type=Path, metavar="FILE", help="default: KUBECONFIG, or ~/.kube/config")
    add("--context", metavar="NAME", help="of the kubeconfig; its current one by default")
    parser = argparse.ArgumentParser(
        prog="autoglm deploy",
        description="Check a Kubernetes cluster, install the Helm chart on it, watch it come up, look after it.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, words: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, parents=[common], help=words, description=words.capitalize() + ".")

    _add_chart(preflight := verb("preflight", "ask the cluster whether the release would come up; changes nothing"))
    _add_json(preflight)
    _add_chart(install := verb("install", "install the release, and show its pods until they are ready"))
    _add_chart(upgrade := verb("upgrade", "change the release: its values stay, and the given ones are put over them"))
    upgrade.add_argument("--reset-values", action="store_true", help="forget the values that the release has")
    for changing in (install, upgrade):
        _add_waiting(changing)
        changing.add_argument("--skip-preflight", action="store_true", help="do not ask the cluster first")
        changing.add_argument(
            "--rollback-on-failure", action="store_true", help="go back to what was there if it does not come up"
        )
    _add_json(verb("status", "show revision, Deployments, pods; exit status 1 when it is not all ready"))
    verb("history", "list the revisions")
    rollback = verb("rollback", "go back to an earlier revision")
    rollback.add_argument("revision", nargs="?", type=int, help="the one before the current by default")
    _add_waiting(rollback)
    _add_logs(verb("logs", "show the pods' logs"))
    _add_timeout(verb("test", "run the chart's tests (chat, stream, screenshot) and show what they say"), 600)
    uninstall = verb("uninstall", "remove the release; Secrets, claims and the namespace stay")
    uninstall.add_argument("--yes", action="store_true", help="do not ask")
    _add_timeout(uninstall, 600)
    return parser.parse_args(argv)


def _add_chart(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--chart", type=Path, metavar="DIR", help="default: the chart beside this package in its checkout")
    add("-f", "--values", type=Path, action="append", default=[], metavar="FILE", help="YAML; repeatable")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a single value, as for helm; repeatable")


def _add_waiting(parser: argparse.ArgumentParser) -> None:
    _add_timeout(parser, _TIMEOUT_S)
    parser.add_argument("--no-wait", action="store_true", help="return as soon as Kubernetes has the objects")


def _add_timeout(parser: argparse.ArgumentParser, default_s: int) -> None:
    words = "how long to wait (default: %(default)s)"
    parser.add_argument("--timeout", type=_seconds, default=default_s, metavar="SECONDS", help=words)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")


def _add_logs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("component", nargs="?", choices=("gateway", "triton", "engines", "test"), help="all of them by default")
    add("--tail", type=int, metavar="LINES", help="only the last lines of each")
    add("-F", "--follow", action="store_true", help="go on as they write")
    add("--previous", action="store_true", help="of the containers before the last restart")


def _seconds(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of seconds from 1")
    return int(text)
