"""Doorway to the vision encoder (autoglm_backend/encoders/vision.py)."""

import autoglm_site

autoglm_site.activate()

from autoglm_backend.doorways.encoders import open_vision


class TritonPythonModel:
    def initialize(self, args):
        self._doorway = open_vision(args)

    def execute(self, requests):
        return self._doorway.execute(requests)

    def finalize(self):
        self._doorway.finalize()
