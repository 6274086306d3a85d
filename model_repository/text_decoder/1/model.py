"""Doorway to the decoder and its engine (autoglm_backend/engine)."""

import autoglm_site

autoglm_site.activate()

from autoglm_backend.doorways.decoder import open_decoder


class TritonPythonModel:
    def initialize(self, args):
        self._doorway = open_decoder(args)

    def execute(self, requests):
        return self._doorway.execute(requests)

    def finalize(self):
        self._doorway.finalize()
