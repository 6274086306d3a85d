"""Things to say while learning to hear: labels of the phone world in any order and in command-like phrases.

Orders that make no sense are on purpose: an encoder that can guess the next word does not learn its sound.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from autoglm_training.config.recipes import SpokenClips
from autoglm_training.speech.clips import CORPORA, Clip, Line, build_shards, load_shard, shard_paths
from autoglm_training.speech.synth import Split
from autoglm_training.world.labels import label_vocabulary
from autoglm_training.world.language import Language, is_chinese
from autoglm_training.world.phrases import families, phrase
from autoglm_training.world.running_text import CAPTIONS, MESSAGES, QUESTIONS
from autoglm_training.world.text_tasks import text_task

CARRIERS: dict[Language, tuple[str, ...]] = {
    "en": (
        "open {}", "launch {}", "start {}", "tap {}", "tap on {}", "click {}", "press the {} button",
        "go to {}", "turn on {}", "turn off {}", "switch {} on", "search for {}", "type {}", "enter {}",
        "find {}", "show me {}",
        "please open the {} app", "can you open {}", "select {}", "choose {}", "long press {}", "double tap {}",
        "call {}", "send {} to {}", "what is {}", "close {}", "I want to use {}", "take me to {}",
    ),
    "zh": (
        "打开{}", "启动{}", "点击{}", "点一下{}", "按一下{}", "进入{}", "关闭{}", "开启{}", "搜索{}", "输入{}",
        "查找{}",
        "请打开{}", "帮我打开{}", "选择{}", "长按{}", "双击{}", "给{}打电话", "把{}发给{}", "我想用{}", "去{}",
        "点击{}按钮",
        "把{}打开", "把{}关掉", "切换到{}", "运行{}应用",
    ),
}  # fmt: skip
ENGLISH_SHARE = 0.6
"""English spelling is the harder half."""
COMMANDS: dict[Language, tuple[str, ...]] = {
    "en": (
        "go back", "back", "return to the previous page", "go home", "home screen", "scroll down", "scroll up",
        "swipe left", "swipe right", "swipe up", "swipe down", "wait", "wait a moment", "wait 5 seconds",
        "who are you",
        "what can you do", "finish", "done", "stop", "the task is done", "take over", "press home", "hello",
        "thank you",
    ),
    "zh": (
        "返回", "返回上一页", "后退", "回到桌面", "回到主屏幕", "回主页", "向下滑动", "向上滑动", "向左滑动",
        "向右滑动", "往下翻", "往上滑",
        "等待", "等一下", "等5秒", "你是谁", "你能做什么", "完成", "任务完成了", "结束任务", "停止", "你好",
        "谢谢",
    ),
}  # fmt: skip


def practice_line(rng: random.Random, split: Split) -> Line:
    """One text. Combinations of "train" and "test" are disjoint (by a hash of the text, one in ten is "test"); single
    labels, fixed commands and messages are in both, for a word that was never heard cannot be spelt."""
    while True:
        text, is_combination = _draw(rng, "en" if rng.random() < ENGLISH_SHARE else "zh")
        is_test = hashlib.sha256(text.encode()).digest()[0] % 10 == 0
        if not is_combination or is_test == (split == "test"):
            return Line(text=text)


def command_line(rng: random.Random, split: Split) -> Line:
    """A command of the phone world in any of its families, its slots filled with any labels."""
    language: Language = "en" if rng.random() < ENGLISH_SHARE else "zh"
    labels = [label for label in label_vocabulary() if is_chinese(label) == (language == "zh")]
    slots = {name: rng.choice(labels) for name in "xkt"} | {"n": str(rng.randint(2, 30))}
    family = rng.choice(families())
    return Line(text=phrase(rng, family, language, split, slots), family=family)


def _draw(rng: random.Random, language: Language) -> tuple[str, bool]:
    """A text and whether it is put together at random."""
    labels = [label for label in label_vocabulary() if is_chinese(label) == (language == "zh")]
    questions = tuple(question for question, _ in QUESTIONS[language])
    running = (*MESSAGES[language], *questions, *CAPTIONS[language])
    between = "" if language == "zh" else " "
    kind = rng.random()
    if kind < 0.15:
        return rng.choice(labels), False
    if kind < 0.25:
        return rng.choice(COMMANDS[language]), False
    if kind < 0.3:
        return rng.choice(running), False
    if kind < 0.45 and language == "en":
        words = [word for text in (*labels, *running, *COMMANDS[language]) for word in text.split()]
        return " ".join(rng.sample(words, rng.randint(2, 4))), True
    if kind < 0.6:
        return between.join(rng.sample(labels, rng.choice((2, 2, 3)))), True
    carrier = rng.choice(CARRIERS[language])
    return carrier.format(*rng.sample(labels, carrier.count("{}"))), True


def task_line(rng: random.Random, split: Split) -> Line:
    """A speakable instruction that needs no screen, with its task."""
    while True:
        task = text_task(rng, split)
        if task.speakable:
            return Line(text=task.instruction, family=task.family, task=task)


def spoken_clips(config: SpokenClips, directory: Path, split: Split, workers: int = 1) -> list[Clip]:
    """Every clip of the split, spoken first where `directory` lacks them.

    Raises SynthesisError without espeak-ng, OSError, or ValueError for a damaged shard.
    """
    num_shards, num_clips = (
        (config.train_shards, config.train_clips) if split == "train" else (config.test_shards, config.test_clips)
    )
    clips: list[Clip] = []
    for name, source in zip(CORPORA, (practice_line, command_line, task_line), strict=True):
        paths = shard_paths(directory, name, split, num_shards)
        build_shards(paths, source, split, num_clips, workers)
        clips += [clip for path in paths for clip in load_shard(path)]
    return clips
