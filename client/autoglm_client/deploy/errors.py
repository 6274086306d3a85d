"""What can go wrong, each as one sentence for the person at the terminal."""

from __future__ import annotations


class DeployError(Exception):
    """Says what is wrong and, where that is known, what to do."""


class ClusterError(DeployError):
    """The API server refused."""


class UnauthorizedError(ClusterError):
    """It does not know who asks."""


class ForbiddenError(ClusterError):
    """It knows who asks, and these may not."""


class NotFoundError(ClusterError):
    """There is no such object."""


class UnreachableError(DeployError):
    """No API server answered."""


class HelmError(DeployError):
    """Helm refused; its own words."""
