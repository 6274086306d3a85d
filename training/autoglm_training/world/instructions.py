"""The public doors to instructions: with and without a screen."""

from __future__ import annotations

from autoglm_training.world.screen_tasks import screen_tasks
from autoglm_training.world.tasks import Task, parse_action
from autoglm_training.world.text_tasks import TEXT_FAMILIES, text_task

__all__ = ["TEXT_FAMILIES", "Task", "parse_action", "screen_tasks", "text_task"]
