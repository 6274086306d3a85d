"""The most that the models take of one medium: the gateway refuses more by the file's header, the models once more."""

MAX_IMAGE_PIXELS = 64_000_000
"""More than any phone's screen or camera; below Pillow's own warning at 89 million."""
MAX_AUDIO_S = 30.0
"""As much as Whisper's encoders hear at once; a spoken command takes seconds."""
