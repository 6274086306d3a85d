"""What an encoder's weights take and give back, on Triton's metrics page and in the launcher's output."""

from __future__ import annotations

from autoglm_backend import status_lines, triton_io
from autoglm_backend.encoders.residency import Loaded, Offloaded
from autoglm_backend.status_lines import Notice

_MB = 1e6


class EncoderMemory:
    def __init__(self, model: str) -> None:
        self._model = model
        self._resident = triton_io.Gauge(
            f"autoglm_{model}_weights_bytes", "Weights in memory; 0 while they are offloaded or there are none"
        )
        self._saved = triton_io.Gauge(
            f"autoglm_{model}_offload_saved_bytes", "Memory that offloading has given back, measured; 0 while loaded"
        )
        self._resident.set(0)
        self._saved.set(0)

    def observe(self, change: Offloaded | Loaded) -> None:
        if isinstance(change, Offloaded):
            self._resident.set(0)
            self._saved.set(change.freed_bytes)
            self._say(f"offloaded after idling, {change.freed_bytes / _MB:.1f} MB of memory given back")
            return
        self._resident.set(change.weights_bytes)
        self._saved.set(0)
        if change.is_reload:
            self._say(f"loaded again, {change.weights_bytes / _MB:.1f} MB in {change.seconds:.2f} s")

    def close(self) -> None:
        self._resident.close()
        self._saved.close()

    def _say(self, what: str) -> None:
        triton_io.show(status_lines.write(Notice(message=f"{self._model}: {what}")))
