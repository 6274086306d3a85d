"""A release on a cluster, and what is done to it. Says what it does on stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoglm_client.deploy.cluster import Cluster, connect, kubeconfig_path
from autoglm_client.deploy.errors import DeployError, HelmError
from autoglm_client.deploy.findings import Finding, Level, count, print_findings, verdict
from autoglm_client.deploy.helm import DEFAULT_CHART, Helm, Revision, Target, find_helm, read_chart
from autoglm_client.deploy.logs import LogQuery, show_logs
from autoglm_client.deploy.look import Plan
from autoglm_client.deploy.preflight import preflight
from autoglm_client.deploy.rollout import RolloutError, Watch
from autoglm_client.deploy.status import current_revision
from autoglm_client.deploy.values import Values, merged, read_values

_IN_FORCE = ("deployed", "superseded")
_UNDO_TIMEOUT_S = 600  # a short patience with the new is none with the old


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Every method raises DeployError."""

    cluster: Cluster
    helm: Helm
    target: Target

    def preflight(self, chart: Path | None, files: Sequence[Path], assignments: Sequence[str]) -> list[Finding]:
        """Of an installation; where the release is there, of an upgrade of it."""
        is_upgrade = bool(self.helm.history())
        values = read_values(files, assignments)
        if is_upgrade:
            values = merged(self.helm.values(), values)
        return self._check(_chart(chart), values, is_upgrade=is_upgrade)

    def install(
        self,
        chart: Path | None,
        files: Sequence[Path],
        assignments: Sequence[str],
        *,
        timeout_s: int,
        waits: bool,
        checks: bool,
        undoes_failure: bool,
    ) -> None:
        revisions = self._at_rest()
        if any(revision.status in _IN_FORCE for revision in revisions):
            raise DeployError(
                f"release {self.target.release} is in {self.target.namespace} already (revision "
                f"{revisions[-1].number}): `autoglm deploy upgrade` changes it."
            )
        values = read_values(files, assignments)
        self._apply(_chart(chart), values, revisions, timeout_s, waits=waits, checks=checks, undoes=undoes_failure)

    def upgrade(
        self,
        chart: Path | None,
        files: Sequence[Path],
        assignments: Sequence[str],
        *,
        resets_values: bool,
        timeout_s: int,
        waits: bool,
        checks: bool,
        undoes_failure: bool,
    ) -> None:
        current_revision(self.helm, self.target)
        revisions = self._at_rest()
        given = read_values(files, assignments)
        values = given if resets_values else merged(self.helm.values(), given)
        self._apply(_chart(chart), values, revisions, timeout_s, waits=waits, checks=checks, undoes=undoes_failure)

    def rollback(self, number: int | None, *, timeout_s: int, waits: bool) -> None:
        current = current_revision(self.helm, self.target)
        revisions = self.helm.history()
        earlier = [r for r in revisions if r.number < current.number and r.status in _IN_FORCE]
        if number is None:
            if not earlier:
                raise DeployError(
                    f"revision {current.number} is the first that worked: there is nothing to go back to."
                )
            number = earlier[-1].number
        elif number not in {revision.number for revision in revisions}:
            known = ", ".join(str(revision.number) for revision in revisions)
            raise DeployError(f"there is no revision {number}, only {known}.")
        self._back_to(number, timeout_s, waits=waits)

    def test(self, *, timeout_s: int) -> None:
        current_revision(self.helm, self.target)
        watch = self._watch()
        try:
            watch.during(lambda: self.helm.test(timeout_s=timeout_s))
        except HelmError as error:
            self._show_tests()
            raise DeployError(f"the tests failed: {error}") from error
        self._show_tests()
        print("all tests passed.")

    def uninstall(self, *, timeout_s: int) -> None:
        current_revision(self.helm, self.target)
        watch = self._watch()
        watch.during(lambda: self.helm.uninstall(timeout_s=timeout_s))
        print("the release is removed; its pods end their streams.")
        watch.until_gone(timeout_s)
        print(f"gone. The namespace {self.target.namespace}, and Secrets and claims that you made, are still there.")

    def _apply(
        self,
        chart: Path,
        values: Values,
        revisions: Sequence[Revision],
        timeout_s: int,
        *,
        waits: bool,
        checks: bool,
        undoes: bool,
    ) -> None:
        if checks:
            findings = self._check(chart, values, is_upgrade=bool(revisions))
            print_findings([finding for finding in findings if finding.level is not Level.OK], sys.stdout)
            print(verdict(findings))
            if count(findings, Level.FAILURE):
                raise DeployError("nothing was changed; --skip-preflight goes on all the same.")
        is_absent = self.cluster.find(f"/api/v1/namespaces/{self.target.namespace}") is None
        watch = self._watch()
        try:
            watch.during(lambda: self.helm.apply(chart, values, timeout_s=timeout_s, makes_namespace=is_absent))
            print(f"Kubernetes has revision {current_revision(self.helm, self.target).number}.")
            if waits:
                watch.until_ready(timeout_s)
        except (RolloutError, HelmError) as error:
            if not undoes:
                raise DeployError(
                    f"{error}\n`autoglm deploy status` shows it, `logs` and `rollback` may help."
                ) from error
            print(f"{error}\ngoing back.")
            self._undo(revisions, max(timeout_s, _UNDO_TIMEOUT_S))
            raise DeployError(f"{error}\nThat has been undone.") from error
        if waits:
            print(f"ready. `autoglm deploy test {self._words()}` calls it.")

    def _undo(self, revisions: Sequence[Revision], timeout_s: int) -> None:
        worked = [revision.number for revision in revisions if revision.status in _IN_FORCE]
        if worked:
            self._back_to(worked[-1], timeout_s, waits=True)
        elif self.helm.history():
            self.uninstall(timeout_s=timeout_s)

    def _back_to(self, number: int, timeout_s: int, *, waits: bool) -> None:
        watch = self._watch()
        watch.during(lambda: self.helm.rollback(number, timeout_s=timeout_s))
        print(f"back to revision {number}, as revision {current_revision(self.helm, self.target).number}.")
        if waits:
            watch.until_ready(timeout_s)
            print("ready.")

    def _at_rest(self) -> list[Revision]:
        """The history. Raises DeployError while, or after, another Helm was at work on the release."""
        revisions = sorted(self.helm.history(), key=lambda revision: revision.number)
        if revisions and revisions[-1].status.startswith(("pending-", "uninstalling")):
            raise DeployError(
                f"revision {revisions[-1].number} is {revisions[-1].status}: another Helm is at work on it, or was "
                "killed. If killed, `autoglm deploy rollback` frees it, or `uninstall` after a first installation."
            )
        return revisions

    def _check(self, chart: Path, values: Values, *, is_upgrade: bool) -> list[Finding]:
        plan = Plan(
            cluster=self.cluster,
            helm=self.helm,
            target=self.target,
            chart=chart,
            values=values,
            is_upgrade=is_upgrade,
        )
        return preflight(plan)

    def _show_tests(self) -> None:
        show_logs(self.cluster, self.target, LogQuery(component="test"), sys.stdout)

    def _watch(self) -> Watch:
        return Watch(cluster=self.cluster, target=self.target, out=sys.stdout)

    def _words(self) -> str:
        return f"--release {self.target.release} -n {self.target.namespace}"


def open_session(kubeconfig: Path | None, context: str | None, release: str, namespace: str | None) -> Session:
    """Raises DeployError without a kubeconfig, or without Helm."""
    cluster = connect(kubeconfig, context)
    chosen = kubeconfig_path(kubeconfig)
    target = Target(
        release=release,
        namespace=namespace or cluster.namespace,
        # several files together are left to KUBECONFIG
        kubeconfig=None if chosen is None or os.pathsep in chosen else Path(chosen),
        context=context,
    )
    return Session(cluster=cluster, helm=find_helm(target), target=target)


def _chart(given: Path | None) -> Path:
    chart = (given or DEFAULT_CHART).resolve()
    read_chart(chart)
    return chart
