"""Short open-vocabulary texts to copy: names, phrases, numbers, addresses."""

# ruff: noqa: E501 (a Chinese character counts as two columns)

from __future__ import annotations

import random

from autoglm_training.world.labels import APPS, CONTACTS, PLACES, PRODUCTS, SONGS, chinese_characters, names
from autoglm_training.world.language import Language
from autoglm_training.world.running_text import MESSAGES

_WORDS = (
    "apple", "blue", "river", "happy", "seven", "mountain", "coffee", "window", "garden", "music", "today", "summer",
    "winter", "friend", "little", "house", "yellow", "train", "ticket", "paper", "market", "silver", "ocean", "cloud",
    "dinner", "lunch", "meeting", "project", "report", "morning", "evening", "station", "doctor", "family", "weekend",
    "holiday", "birthday", "cheap", "flight", "hotel", "weather", "football", "movie", "book", "running", "shoes",
    "red", "green", "big", "small", "new", "old", "fast", "slow", "good", "best", "near", "city", "street", "bread",
    "milk", "water", "chicken", "noodle", "recipe", "phone", "laptop", "camera", "photo", "video", "news", "cat", "dog",
    "bird", "tree", "flower", "sun", "moon", "star", "night", "light", "love", "hope", "dream", "time", "world",
)  # fmt: skip
_SYLLABLES = (
    "ba", "ko", "li", "mar", "ten", "so", "ri", "na", "del", "vo", "shi", "tan", "gu", "pe", "lo", "mi", "ras", "ha",
    "zen", "qui", "ja", "wo", "fy", "cu", "be", "dor", "ek", "ui", "xa", "om",
)  # fmt: skip
_ZH_WORDS = (
    "今天", "明天", "天气", "电影", "北京", "上海", "广州", "成都", "机票", "酒店", "附近", "火锅", "奶茶", "蛋糕", "跑步", "篮球", "足球",
    "新闻", "音乐", "小说", "手机", "电脑", "照片", "旅游", "攻略", "早餐", "午餐", "晚餐", "会议", "报告", "项目", "周末", "生日", "快乐",
    "红色", "蓝色", "便宜", "好吃", "最新", "中国", "医生", "家人", "朋友", "学习", "英语", "数学", "地铁", "公交", "打车", "回家",
)  # fmt: skip


def copy_text(rng: random.Random, language: Language) -> str:
    """A text without quotes or backslashes, 1 to about 30 characters."""
    kind = rng.random()
    if kind < 0.18:
        return rng.choice(MESSAGES[language])
    if kind < 0.34:
        return rng.choice(names(rng.choice((CONTACTS, PRODUCTS, SONGS, PLACES, APPS)), language))
    if kind < 0.52:
        return _number(rng)
    if kind < 0.58:
        return f"{_name(rng)}@{rng.choice(('mail.com', 'example.com', 'qq.com', 'test.org'))}"
    if kind < 0.64:
        return f"{_name(rng)}{rng.choice(('.com', '.org', '.cn', str(rng.randint(1, 99))))}"
    if language == "zh":
        if kind < 0.82:
            return "".join(rng.choices(_ZH_WORDS, k=rng.randint(1, 3)))
        return "".join(rng.choices(chinese_characters(), k=rng.randint(1, 6)))
    if kind < 0.72:
        return _name(rng).capitalize()
    words: list[str] = rng.choices(_WORDS, k=rng.randint(1, 4))
    if rng.random() < 0.2:
        words.insert(rng.randrange(len(words) + 1), _name(rng))
    text = " ".join(words)
    return text.capitalize() if rng.random() < 0.4 else text


def simple_text(rng: random.Random, language: Language) -> str:
    """A text of plain words, safe to quote nowhere: it may stand unquoted in a sentence or be spoken."""
    if language == "zh":
        return "".join(rng.choices(_ZH_WORDS, k=rng.randint(1, 3)))
    return " ".join(rng.choices(_WORDS, k=rng.randint(1, 3)))


def _name(rng: random.Random) -> str:
    return "".join(rng.choices(_SYLLABLES, k=rng.randint(2, 3)))


def _number(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.5:
        return str(rng.randrange(10 ** rng.randint(1, 6)))
    if kind < 0.65:
        return f"1{rng.randint(30, 99)}{rng.randrange(10**8):08d}"
    if kind < 0.8:
        return f"{rng.randint(0, 23)}:{rng.randint(0, 59):02d}"
    if kind < 0.9:
        return f"{rng.randint(1, 999)}.{rng.randint(0, 99):02d}"
    return f"{rng.randint(2020, 2030)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
