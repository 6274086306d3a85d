"""Running text of the screens: chat lines, questions, captions. Read by characters only, never a word class."""

# ruff: noqa: E501 (a Chinese character counts as two columns)

from __future__ import annotations

from autoglm_training.world.language import Language

MESSAGES: dict[Language, tuple[str, ...]] = {
    "en": (
        "See you at 8", "On my way", "Thanks a lot!", "Are you free?", "Good morning", "Good night", "Call me later",
        "Happy birthday!", "Let's have lunch", "Where are you?", "I'm at home", "Sounds good", "Send me the file",
        "The train is late", "Meeting at 10:30", "No problem", "See you tomorrow", "I got the tickets",
        "What time is it?", "Dinner at my place", "Great idea!", "Just a minute", "Please wait", "Ok, bye",
    ),
    "zh": (
        "晚上八点见", "我在路上了", "非常感谢！", "你有空吗？", "早上好", "晚安", "等会儿打给我", "生日快乐！", "一起吃午饭吧", "你在哪儿？",
        "我到家了", "听起来不错", "把文件发给我", "火车晚点了", "十点半开会", "没问题", "明天见", "我买到票了", "现在几点？", "来我家吃晚饭",
        "好主意！", "稍等一下", "请等我", "好的，再见",
    ),
}  # fmt: skip
QUESTIONS: dict[Language, tuple[tuple[str, tuple[int, int]], ...]] = {
    # (text, (BUTTONS index of the refusing button, of the accepting one))
    "en": (
        ("Delete this chat?", (1, 4)), ("Save the changes?", (1, 5)), ("Allow access to photos?", (3, 2)),
        ("Install the update?", (29, 23)), ("Pay for this order?", (1, 10)), ("Connection failed", (1, 14)),
        ("Share your location?", (3, 2)), ("A new version is ready", (29, 24)), ("Download the file?", (1, 22)),
        ("Use mobile data?", (1, 31)), ("Send this message?", (1, 6)), ("Accept the terms?", (1, 30)),
    ),
    "zh": (
        ("删除这个聊天吗？", (1, 4)), ("要保存修改吗？", (1, 5)), ("允许访问照片吗？", (3, 2)), ("现在安装更新吗？", (29, 23)),
        ("确认支付订单吗？", (1, 10)), ("连接失败", (1, 14)), ("分享你的位置吗？", (3, 2)), ("新版本已准备好", (29, 24)),
        ("下载这个文件吗？", (1, 22)), ("使用移动数据吗？", (1, 31)), ("发送这条消息吗？", (1, 6)), ("接受服务条款吗？", (1, 30)),
    ),
}  # fmt: skip
CAPTIONS: dict[Language, tuple[str, ...]] = {
    "en": ("On", "Off", "Connected", "Not set", "New", "4.8 stars", "Free shipping", "Sold out soon", "Open until 9",
           "every day", "weekdays", "weekend", "once", "yesterday", "sold", "space", "min", "Total"),
    "zh": ("开启", "关闭", "已连接", "未设置", "新", "评分4.8", "包邮", "即将售完", "营业到九点", "每天", "工作日", "周末", "一次",
           "昨天", "米", "公里", "已售", "件", "空格", "分钟", "合计"),
}  # fmt: skip
