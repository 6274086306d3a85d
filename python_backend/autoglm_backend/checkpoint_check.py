"""Everything about a checkpoint that can be found wrong without loading its weights, before anything is started."""

from __future__ import annotations

from pathlib import Path

from autoglm_backend.models.config import CheckpointError, ModelConfig, load_model_config, load_speech_config
from autoglm_backend.models.shards import check_shards
from autoglm_backend.preprocess.chat_template import load_chat_template
from autoglm_backend.preprocess.image import ImageProcessorConfig, load_image_config
from autoglm_backend.preprocess.template_check import check_template

SPEECH_CONFIG = Path("speech") / "speech_config.json"


def check_checkpoint(checkpoint_dir: Path) -> tuple[str, ...]:
    """What an operator should know of it. Raises CheckpointError naming the file and the field."""
    config = load_model_config(checkpoint_dir)
    check_shards(checkpoint_dir)
    _check_image_config(load_image_config(checkpoint_dir), config, checkpoint_dir)
    if (checkpoint_dir / SPEECH_CONFIG).exists():
        speech = load_speech_config(checkpoint_dir / SPEECH_CONFIG)
        if speech.out_hidden_size != config.text.hidden_size:
            raise CheckpointError(
                f"{checkpoint_dir / SPEECH_CONFIG}: out_hidden_size is {speech.out_hidden_size}, "
                f"config.json has a text_config.hidden_size of {config.text.hidden_size}"
            )
    template = load_chat_template(checkpoint_dir, config)
    try:
        return check_template(template, config)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint_dir}: {error}") from None


def _check_image_config(image: ImageProcessorConfig, config: ModelConfig, checkpoint_dir: Path) -> None:
    vision = config.vision
    pairs = {
        "patch_size": (image.patch_size, vision.patch_size),
        "temporal_patch_size": (image.temporal_patch_size, vision.temporal_patch_size),
        "merge_size": (image.merge_size, vision.spatial_merge_size),
    }
    for name, (ours, models) in pairs.items():
        if ours != models:
            raise CheckpointError(
                f"{checkpoint_dir / 'preprocessor_config.json'}: {name} is {ours}, config.json says {models}"
            )
