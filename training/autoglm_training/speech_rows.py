"""Spoken commands as rows: what the frozen speech encoder heard, as token ids between the audio marks.

The served encoder hands the decoder its own embeddings of the pieces it heard, so such rows need no audio.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from autoglm_training.samples import Row, RowBuilder, app_json
from autoglm_training.screen_rows import SPOKEN_APP_SHARE
from autoglm_training.speech.heard import HeardClips


@dataclass(slots=True)
class SpeechRows:
    builder: RowBuilder
    clips: HeardClips

    @classmethod
    def open(cls, speech_dir: Path, builder: RowBuilder) -> SpeechRows | None:
        """What the speech stages left in `speech_dir` (`heard-train.jsonl`), else None."""
        try:
            return cls(builder, HeardClips("train", speech_dir))
        except FileNotFoundError:
            return None

    def row(self, rng: random.Random) -> Row:
        """One spoken command and its reply."""
        task, heard = self.clips.pick(rng)
        row = Row()
        self.builder.add_text(row, "[gMASK]<sop><|user|>\n")
        self.builder.add_heard(row, heard)
        if rng.random() < SPOKEN_APP_SHARE:
            self.builder.add_text(row, "\n\n" + app_json(task.app))
        self.builder.add_reply(row, task.reply)
        return row
