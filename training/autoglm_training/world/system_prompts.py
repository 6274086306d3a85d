"""System prompts in the manner of phone agents: today's date, the reply format, the actions, then rules. Our own wording."""

# ruff: noqa: E501 (a Chinese character counts as two columns)

from __future__ import annotations

import datetime
import random

from autoglm_training.world.language import Language

_WEEKDAYS_ZH = ("星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日")
_FIRST_DAY = datetime.date(2025, 1, 1)
_DAYS = 2000

_OPENING: dict[Language, str] = {
    "en": (
        "You are an Android operation agent. Each turn you get a screenshot and decide on one action that brings the "
        "user's task forward.\nReply strictly as\n<think>{think}</think>\n<answer>{action}</answer>\nwhere {think} is a "
        "short reason and {action} is one line of code from this list:"
    ),
    "zh": (
        "你是一个手机操作智能体。每一轮你会看到一张截图，请选择一个动作来推进用户的任务。\n必须严格按照下面的格式输出：\n"
        "<think>{think}</think>\n<answer>{action}</answer>\n其中{think}是简短的理由，{action}是下面列表中的一行操作指令："
    ),
}
_ACTIONS: tuple[tuple[str, str, str], ...] = (
    ('do(action="Launch", app="xxx")', "Start an app. This is quicker than finding it on the home screen.",
     "启动应用，比在主屏幕上寻找更快。"),
    ('do(action="Tap", element=[x,y])',
     "Tap a point. Coordinates run from (0,0) at the top left to (999,999) at the bottom right.",
     "点击屏幕上的一个点，坐标从左上角(0,0)到右下角(999,999)。"),
    ('do(action="Tap", element=[x,y], message="important operation")',
     "Tap something sensitive such as paying or deleting.", "点击涉及支付、隐私等敏感按钮时使用。"),
    ('do(action="Type", text="xxx")', "Enter text into the focused field; tap the field first. Old text is cleared.",
     "在已聚焦的输入框中输入文字，输入前要先点击输入框，原有文字会被清除。"),
    ('do(action="Type_Name", text="xxx")', "Enter a person's name.", "输入人名，用法与Type相同。"),
    ('do(action="Interact")', "Ask the user to choose when several options fit.", "有多个满足条件的选项时，询问用户如何选择。"),
    ('do(action="Swipe", start=[x1,y1], end=[x2,y2])', "Drag from one point to another, for example to scroll.",
     "从起点拖动到终点，可用于滚动内容、切换页面或下拉通知栏。"),
    ('do(action="Note", message="True")', "Remember this page for a later summary.", "记录当前页面内容以便后续总结。"),
    ('do(action="Call_API", instruction="xxx")', "Summarise or comment on recorded pages.", "总结或评论已记录的内容。"),
    ('do(action="Long Press", element=[x,y])', "Press a point for a while, for menus or selection.",
     "长按屏幕上的一个点，可打开菜单或选择文字。"),
    ('do(action="Double Tap", element=[x,y])', "Tap a point twice quickly.", "快速连续点击同一个点两次。"),
    ('do(action="Take_over", message="xxx")', "Let the user do a login or a verification.", "登录和验证时请用户协助操作。"),
    ('do(action="Back")', "Return to the previous screen or close a dialog.", "返回上一个界面或关闭弹窗。"),
    ('do(action="Home")', "Return to the home screen.", "回到系统桌面。"),
    ('do(action="Wait", duration="x seconds")', "Wait x seconds for the page to load.", "等待页面加载，x为秒数。"),
    ('finish(message="xxx")', "End the task and tell the user the result.", "结束任务，message是给用户的结果信息。"),
)  # fmt: skip
_RULES: tuple[tuple[str, str], ...] = (
    (
        "Check first whether the right app is in front; launch it if not.",
        "操作前先检查当前应用是否正确，如果不是就先启动应用。",
    ),
    ("On a page that has nothing to do with the task, go back first.", "进入无关页面时先返回。"),
    (
        "If a page is still loading, wait, but no more than three times in a row.",
        "页面没有加载完时等待，最多连续三次。",
    ),
    ("If the network failed, tap the reload button.", "页面显示网络问题时点击重新加载。"),
    (
        "If you cannot find a contact, product or entry, swipe to look further.",
        "找不到联系人、商品或选项时，可以滑动查找。",
    ),
    ("Loosen price and time ranges that nothing fits.", "没有符合的价格或时间时可以放宽要求。"),
    ("Follow what the user says exactly.", "严格按照用户的意图执行任务。"),
    (
        "Before each step see whether the last one worked; otherwise try again elsewhere.",
        "每一步之前检查上一步是否生效，没有生效就换个位置重试。",
    ),
    ("If swiping does nothing, change the start point or the distance.", "滑动不起作用时，调整起点和距离。"),
    ("Search every tab at most once.", "逐个查找标签页，不要重复查找同一个标签。"),
    ("If no result fits after three tries, finish and give the reason.", "尝试三次仍没有结果时，结束任务并说明原因。"),
    ("Before finishing, check that the task is complete and correct.", "结束任务前检查任务是否完整准确地完成。"),
    ("Do not undo a choice that is already right.", "已经选中的选项不要重复点击。"),
    ("When a date moves the wrong way, swipe in the other direction.", "选择日期时如果方向相反，就往反方向滑动。"),
)


def dated(rng: random.Random, language: Language) -> str:
    """The date line that comes first."""
    day = _FIRST_DAY + datetime.timedelta(days=rng.randrange(_DAYS))
    if language == "zh":
        return f"今天的日期是: {day.year}年{day.month:02d}月{day.day:02d}日 {_WEEKDAYS_ZH[day.weekday()]}"
    style = rng.choice(("The current date: {d}, {w}", "Today's date is: {d} {w}"))
    return style.format(d=day.isoformat(), w=day.strftime("%A"))


def system_prompt(rng: random.Random, language: Language, *, short: bool = False) -> str:
    """A whole system prompt; which actions are explained and which rules are given varies with `rng`.

    `short` keeps only the date and the opening.
    """
    head = dated(rng, language) + "\n" + _OPENING[language]
    if short:
        return head
    column = 2 if language == "zh" else 1
    indent = rng.choice(("  ", "    "))
    actions = [row for row in _ACTIONS if rng.random() < 0.92]
    listed = "\n".join(f"- {row[0]}\n{indent}{row[column]}" for row in actions)
    rules = list(_RULES)
    rng.shuffle(rules)
    rules = rules[: rng.randint(4, len(rules))]
    title = "必须遵循的规则：" if language == "zh" else "Rules that must be followed:"
    numbered = "\n".join(f"{index}. {rule[column - 1]}" for index, rule in enumerate(rules, start=1))
    return f"{head}\n{listed}\n\n{title}\n{numbered}"
