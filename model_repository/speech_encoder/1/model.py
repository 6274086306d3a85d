"""Doorway to the speech encoder (autoglm_backend/encoders/speech.py)."""

import autoglm_site

autoglm_site.activate()

from autoglm_backend.doorways.encoders import open_speech


class TritonPythonModel:
    def initialize(self, args):
        self._doorway = open_speech(args)

    def execute(self, requests):
        return self._doorway.execute(requests)

    def finalize(self):
        self._doorway.finalize()
