"""One certificate authority of a test cluster, and what it signed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    cert: Path
    key: Path


class Authority:
    """Signs into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = trustme.CA()
        self.ca_file = folder / "ca.crt"
        self._ca.cert_pem.write_to_path(str(self.ca_file))

    def server(self, name: str, *hosts: str) -> KeyPair:
        return self._write(name, self._ca.issue_cert(*hosts))

    def client(self, user: str, group: str | None = None) -> KeyPair:
        """Kubernetes reads the user from the common name and the group from the organization."""
        # Go refuses a certificate whose list of names is critical and empty
        leaf = self._ca.issue_cert("client.test", common_name=user, organization_name=group)
        return self._write(user.replace(":", "-"), leaf)

    def _write(self, name: str, leaf: trustme.LeafCert) -> KeyPair:
        pair = KeyPair(cert=self._folder / f"{name}.crt", key=self._folder / f"{name}.key")
        leaf.cert_chain_pems[0].write_to_path(str(pair.cert))
        leaf.private_key_pem.write_to_path(str(pair.key))
        return pair
