"""What the model thinks and answers, as (English, Chinese) patterns."""

from __future__ import annotations

from autoglm_training.world.language import LANGUAGES, Language

THOUGHTS: dict[str, tuple[str, str]] = {
    "launch": ("Open {x}.", "打开{x}。"),
    "back": ("Go back.", "返回上一页。"),
    "home": ("Go to the home screen.", "回到桌面。"),
    "type": ("Type the given text.", "输入给出的文字。"),
    "swipe_up": ("Swipe up to see what is below.", "向上滑动，看下面的内容。"),
    "swipe_down": ("Swipe down to see what is above.", "向下滑动，看上面的内容。"),
    "swipe_left": ("Swipe left to the next page.", "向左滑动，看右边的内容。"),
    "swipe_right": ("Swipe right to the page on the left.", "向右滑动，看左边的内容。"),
    "notifications": ("Pull down the notifications.", "下拉通知栏。"),
    "wait": ("Wait {n} seconds.", "等待{n}秒。"),
    "wait_default": ("Wait a moment.", "稍等一下。"),
    "stop": ("The user wants me to stop.", "用户让我停止。"),
    "finish": ("The task is finished.", "任务已经完成。"),
    "danger": ("This is dangerous, so I refuse.", "这很危险，我不能做。"),
    "impossible": ("A phone cannot do this.", "手机做不到这件事。"),
    "identity": ("The user asks who I am.", "用户问我是谁。"),
    "ability": ("The user asks what I can do.", "用户问我能做什么。"),
    "greeting": ("The user greets me.", "用户在打招呼。"),
    "thanks": ("The user thanks me.", "用户在道谢。"),
    "farewell": ("The user says goodbye.", "用户在道别。"),
    "how_are_you": ("The user asks how I am.", "用户问我好不好。"),
    "take_over": ("The user does this step.", "这一步由用户操作。"),
    "tap": ("Tap {x}.", "点击{x}。"),
    "switch_on": ("{x} is off, so I turn it on.", "{x}是关的，把它打开。"),
    "switch_off": ("{x} is on, so I turn it off.", "{x}是开的，把它关闭。"),
    "toggle": ("Tap the switch of {x}.", "点击{x}的开关。"),
    "is_on": ("{x} is on.", "{x}是开的。"),
    "is_off": ("{x} is off.", "{x}是关的。"),
    "position": ("{p} is {x}.", "{p}是{x}。"),
    "cheapest": ("The cheapest is {x}.", "最便宜的是{x}。"),
    "dearest": ("The most expensive is {x}.", "最贵的是{x}。"),
    "below": ("Below {y} is {x}.", "{y}下面是{x}。"),
    "above": ("Above {y} is {x}.", "{y}上面是{x}。"),
    "right_of": ("Right of {y} is {x}.", "{y}右边是{x}。"),
    "left_of": ("Left of {y} is {x}.", "{y}左边是{x}。"),
    "tallest": ("The tallest bar is {x}.", "最高的柱子是{x}。"),
    "lowest": ("The lowest bar is {x}.", "最低的柱子是{x}。"),
    "price": ("{x} costs {v}.", "{x}的价格是{v}。"),
    "distance": ("{x} is {v} away.", "{x}离这里{v}。"),
    "long_press": ("Long press {x}.", "长按{x}。"),
    "double_tap": ("Double tap {x}.", "双击{x}。"),
    "field": ("Tap the field {x} first.", "先点击{x}输入框。"),
    "scroll_find": ("{x} is not here, so I scroll down.", "这里没有{x}，往下滑。"),
    "app": ("The app is {x}.", "当前应用是{x}。"),
    "icon": ("Tap the {x}.", "点击{x}。"),
    "done": ("That is done.", "已经做好了。"),
    "opened": ("{x} is open now.", "{x}已经打开。"),
    "submit": ("Tap {x} to go on.", "点击{x}继续。"),
}
ANSWERS: dict[str, tuple[str, str]] = {
    "stop": ("Task stopped.", "任务已停止。"),
    "finish": ("Task completed.", "任务已完成。"),
    "danger": ("Sorry, I cannot do that because it is dangerous.", "抱歉，这很危险，我不能这样做。"),
    "impossible": ("Sorry, a phone cannot do that.", "抱歉，手机做不到这件事。"),
    "identity": (
        "I am AutoGLM-Phone, an assistant that operates this phone.",
        "我是AutoGLM-Phone，一个帮你操作手机的助手。",
    ),
    "ability": (
        "I am AutoGLM-Phone. I can open apps, tap, type, swipe and read the screen.",
        "我是AutoGLM-Phone，可以打开应用、点击、输入、滑动和读屏幕。",
    ),
    "greeting": ("Hello! What should I do on the phone?", "你好！需要我在手机上做什么？"),
    "thanks": ("You are welcome.", "不客气。"),
    "farewell": ("Goodbye!", "再见！"),
    "how_are_you": ("I am fine, thank you. What should I do?", "我很好，谢谢。需要我做什么？"),
    "take_over": ("Please do this step yourself.", "请您自己完成这一步。"),
    "is_on": ("{x} is on.", "{x}已打开。"),
    "is_off": ("{x} is off.", "{x}已关闭。"),
    "yes_on": ("Yes, {x} is on.", "是的，{x}开着。"),
    "no_off": ("No, {x} is off.", "没有，{x}是关的。"),
    "price": ("{x} costs {v}.", "{x}的价格是{v}。"),
    "distance": ("{x} is {v} away.", "{x}离这里{v}。"),
    "cheapest": ("The cheapest is {x} at {v}.", "最便宜的是{x}，{v}。"),
    "app": ("This is {x}.", "这是{x}。"),
    "done": ("Done.", "已完成。"),
    "opened": ("{x} is open.", "{x}已打开。"),
}


def thought(name: str, language: Language, **slots: str) -> str:
    """The thought pattern with its slots filled."""
    return THOUGHTS[name][LANGUAGES.index(language)].format(**slots)


def answer(name: str, language: Language, **slots: str) -> str:
    """The answer pattern with its slots filled."""
    return ANSWERS[name][LANGUAGES.index(language)].format(**slots)
