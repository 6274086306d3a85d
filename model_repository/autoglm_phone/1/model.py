"""Doorway to the chat model: plan, encode, decode, write (autoglm_backend/bls)."""

import autoglm_site

autoglm_site.activate()

from autoglm_backend.doorways.phone import open_phone


class TritonPythonModel:
    def initialize(self, args):
        self._doorway = open_phone(args)

    def execute(self, requests):
        return self._doorway.execute(requests)

    def finalize(self):
        self._doorway.finalize()
