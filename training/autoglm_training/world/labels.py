"""Every word the synthetic phone world can show, in English and Simplified Chinese, and the characters they need."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from autoglm_training.world.language import LANGUAGES, Language, is_chinese
from autoglm_training.world.running_text import CAPTIONS, MESSAGES, QUESTIONS

__all__ = [
    "CAPTIONS",
    "LANGUAGES",
    "MESSAGES",
    "QUESTIONS",
    "Language",
    "Pairs",
    "character_ids",
    "character_vocabulary",
    "chinese_characters",
    "is_chinese",
    "label_ids",
    "label_vocabulary",
    "names",
]

Pairs = tuple[tuple[str, str], ...]

# (English name, Chinese name); apps known by one name only repeat it.
APPS: Pairs = (
    ("WeChat", "微信"),
    ("QQ", "QQ"),
    ("Alipay", "支付宝"),
    ("Taobao", "淘宝"),
    ("JD", "京东"),
    ("Meituan", "美团"),
    ("TikTok", "抖音"),
    ("Bilibili", "哔哩哔哩"),
    ("Weibo", "微博"),
    ("Zhihu", "知乎"),
    ("RedNote", "小红书"),
    ("Amap", "高德地图"),
    ("Baidu", "百度"),
    ("Didi", "滴滴出行"),
    ("Ctrip", "携程"),
    ("12306", "12306"),
    ("Kuaishou", "快手"),
    ("Douban", "豆瓣"),
    ("QQ Music", "QQ音乐"),
    ("Settings", "设置"),
    ("Camera", "相机"),
    ("Photos", "相册"),
    ("Phone", "电话"),
    ("Messages", "信息"),
    ("Contacts", "通讯录"),
    ("Clock", "时钟"),
    ("Calendar", "日历"),
    ("Calculator", "计算器"),
    ("Weather", "天气"),
    ("Notes", "备忘录"),
    ("Files", "文件"),
    ("Music", "音乐"),
    ("Maps", "地图"),
    ("Mail", "邮件"),
    ("Browser", "浏览器"),
    ("App Store", "应用商店"),
    ("Recorder", "录音机"),
    ("Compass", "指南针"),
    ("Wallet", "钱包"),
    ("Health", "健康"),
    ("Shop", "购物"),
    ("Video", "视频"),
    ("Books", "阅读"),
    ("Games", "游戏"),
    ("Translate", "翻译"),
    ("News", "新闻"),
    ("Reminders", "提醒事项"),
    ("Themes", "主题"),
    ("Chrome", "Chrome"),
    ("YouTube", "YouTube"),
    ("Gmail", "Gmail"),
    ("WhatsApp", "WhatsApp"),
    ("Telegram", "Telegram"),
    ("Instagram", "Instagram"),
    ("Facebook", "Facebook"),
    ("Netflix", "Netflix"),
    ("Spotify", "Spotify"),
    ("Uber", "Uber"),
    ("Amazon", "Amazon"),
    ("Temu", "Temu"),
    ("Reddit", "Reddit"),
    ("Discord", "Discord"),
    ("Zoom", "Zoom"),
    ("Duolingo", "Duolingo"),
    ("PayPal", "PayPal"),
)
TOGGLES: Pairs = (
    ("Wi-Fi", "无线网络"),
    ("Bluetooth", "蓝牙"),
    ("Airplane Mode", "飞行模式"),
    ("Mobile Data", "移动数据"),
    ("Hotspot", "个人热点"),
    ("NFC", "NFC"),
    ("Location", "定位服务"),
    ("Dark Mode", "深色模式"),
    ("Do Not Disturb", "勿扰模式"),
    ("Battery Saver", "省电模式"),
    ("Auto Rotate", "自动旋转"),
    ("Notifications", "通知"),
    ("Vibration", "振动"),
    ("Night Light", "护眼模式"),
    ("Auto Update", "自动更新"),
    ("VPN", "VPN"),
    ("Roaming", "数据漫游"),
    ("Face Unlock", "面部解锁"),
    ("Fingerprint", "指纹解锁"),
    ("Backup", "云备份"),
    ("Caller ID", "来电显示"),
    ("Silent Mode", "静音模式"),
    ("Flashlight", "手电筒"),
    ("Subtitles", "字幕"),
)
PAGES: Pairs = (
    ("Display", "显示"),
    ("Sound", "声音"),
    ("Storage", "存储"),
    ("Battery", "电池"),
    ("Privacy", "隐私"),
    ("Security", "安全"),
    ("Language", "语言"),
    ("Accounts", "账号"),
    ("Wallpaper", "壁纸"),
    ("About Phone", "关于手机"),
    ("Help", "帮助"),
    ("Date & Time", "日期和时间"),
    ("Keyboard", "键盘"),
    ("Apps", "应用管理"),
    ("Accessibility", "无障碍"),
    ("Network", "网络"),
)
BUTTONS: Pairs = (
    ("OK", "确定"),
    ("Cancel", "取消"),
    ("Allow", "允许"),
    ("Deny", "拒绝"),
    ("Delete", "删除"),
    ("Save", "保存"),
    ("Send", "发送"),
    ("Share", "分享"),
    ("Buy Now", "立即购买"),
    ("Add to Cart", "加入购物车"),
    ("Pay", "付款"),
    ("Close", "关闭"),
    ("Next", "下一步"),
    ("Skip", "跳过"),
    ("Retry", "重试"),
    ("Log In", "登录"),
    ("Sign Up", "注册"),
    ("Edit", "编辑"),
    ("Done", "完成"),
    ("Search", "搜索"),
    ("Copy", "复制"),
    ("Paste", "粘贴"),
    ("Download", "下载"),
    ("Install", "安装"),
    ("Update", "更新"),
    ("Open", "打开"),
    ("Call", "呼叫"),
    ("Reply", "回复"),
    ("Follow", "关注"),
    ("Not Now", "暂不"),
    ("Agree", "同意"),
    ("Continue", "继续"),
    ("Navigate", "导航"),
    ("Directions", "路线"),
    ("Add", "添加"),
)
TABS: Pairs = (
    ("Home", "首页"),
    ("Chats", "聊天"),
    ("Discover", "发现"),
    ("Me", "我的"),
    ("Cart", "购物车"),
    ("Category", "分类"),
    ("Orders", "订单"),
    ("Hot", "热门"),
    ("Nearby", "附近"),
    ("Favorites", "收藏"),
    ("All", "全部"),
    ("Sales", "销量"),
    ("Price", "价格"),
    ("Alarm", "闹钟"),
    ("World Clock", "世界时钟"),
    ("Stopwatch", "秒表"),
    ("Timer", "计时器"),
    ("Day", "日"),
    ("Week", "周"),
    ("Month", "月"),
    ("Latest", "最新"),
)
CONTACTS: Pairs = (
    ("Alice", "张伟"),
    ("Bob", "李娜"),
    ("Carol", "王芳"),
    ("David", "刘洋"),
    ("Emma", "陈静"),
    ("Frank", "杨帆"),
    ("Grace", "赵磊"),
    ("Henry", "黄丽"),
    ("Ivy", "周杰"),
    ("Jack", "吴敏"),
    ("Kate", "徐强"),
    ("Leo", "孙悦"),
    ("Mom", "妈妈"),
    ("Dad", "爸爸"),
    ("Lucy", "小明"),
    ("Nick", "小红"),
    ("Olivia", "老板"),
    ("Peter", "同学群"),
)
PRODUCTS: Pairs = (
    ("Green Tea", "绿茶"),
    ("Black Coffee", "黑咖啡"),
    ("Milk", "牛奶"),
    ("Latte", "拿铁"),
    ("Apple Juice", "苹果汁"),
    ("Bread", "面包"),
    ("Pizza", "披萨"),
    ("Burger", "汉堡"),
    ("Noodles", "面条"),
    ("Rice", "米饭"),
    ("Dumplings", "饺子"),
    ("Orange", "橙子"),
    ("Banana", "香蕉"),
    ("Headphones", "耳机"),
    ("Phone Case", "手机壳"),
    ("Charger", "充电器"),
    ("Backpack", "双肩包"),
    ("T-Shirt", "T恤"),
    ("Sneakers", "运动鞋"),
    ("Umbrella", "雨伞"),
    ("Water Bottle", "水杯"),
    ("Lamp", "台灯"),
    ("Notebook", "笔记本"),
    ("Mouse", "鼠标"),
    ("Watch", "手表"),
    ("Sunglasses", "太阳镜"),
)
SONGS: Pairs = (
    ("Blue Sky", "蓝天"),
    ("Moonlight", "月光"),
    ("Summer Rain", "夏雨"),
    ("Sunrise", "日出"),
    ("River", "河流"),
    ("Old Friend", "老朋友"),
    ("Fireworks", "烟火"),
    ("First Snow", "初雪"),
    ("Dream", "梦"),
    ("Starry Night", "星空"),
    ("Sea Breeze", "海风"),
    ("Way Home", "回家的路"),
)
PLACES: Pairs = (
    ("Airport", "机场"),
    ("Train Station", "火车站"),
    ("Library", "图书馆"),
    ("Park", "公园"),
    ("Hospital", "医院"),
    ("Museum", "博物馆"),
    ("School", "学校"),
    ("Hotel", "酒店"),
    ("Coffee Shop", "咖啡店"),
    ("Supermarket", "超市"),
    ("Cinema", "电影院"),
    ("Gym", "健身房"),
    ("Bank", "银行"),
    ("Zoo", "动物园"),
)
DAYS: Pairs = (
    ("Mon", "周一"),
    ("Tue", "周二"),
    ("Wed", "周三"),
    ("Thu", "周四"),
    ("Fri", "周五"),
    ("Sat", "周六"),
    ("Sun", "周日"),
)
TITLES: Pairs = (
    ("Now Playing", "正在播放"),
    ("Statistics", "统计"),
    ("Steps", "步数"),
    ("Screen Time", "屏幕时间"),
    ("Spending", "消费"),
    ("Results", "搜索结果"),
    ("Recent", "最近"),
    ("Recommended", "推荐"),
)
FIELDS: Pairs = (
    ("Type a message", "输入消息"),
    ("Search settings", "搜索设置"),
    ("Search here", "搜索内容"),
    ("Phone number", "手机号"),
    ("Password", "密码"),
    ("Name", "姓名"),
    ("New note", "新建笔记"),
    ("Where to?", "你要去哪儿"),
)
ALL_PAIRS: tuple[Pairs, ...] = (
    APPS, TOGGLES, PAGES, BUTTONS, TABS, CONTACTS, PRODUCTS, SONGS, PLACES, DAYS, TITLES, FIELDS,
)  # fmt: skip

DAY_NAMES_EN: dict[str, str] = {
    "Mon": "Monday", "Tue": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday",
    "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday",
}  # fmt: skip

ASCII_CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz.,:;!?'\"-+/&%@#()$_*=<>[]|"
OTHER_PUNCTUATION = "¥€°·…，。！？：、"


def names(pairs: Pairs, language: Language) -> tuple[str, ...]:
    """The column of `pairs` in `language`."""
    column = LANGUAGES.index(language)
    return tuple(pair[column] for pair in pairs)


@lru_cache(maxsize=1)
def label_vocabulary() -> tuple[str, ...]:
    """Every UI label, each once, in a fixed order; a label's class is its index here."""
    columns = (label for pairs in ALL_PAIRS for language in LANGUAGES for label in names(pairs, language))
    return tuple(dict.fromkeys(columns))


@lru_cache(maxsize=1)
def label_ids() -> dict[str, int]:
    """Label to its index in `label_vocabulary()`."""
    return {label: index for index, label in enumerate(label_vocabulary())}


def _running_text() -> Iterable[str]:
    for language in LANGUAGES:
        yield from MESSAGES[language]
        yield from (text for text, _ in QUESTIONS[language])
        yield from CAPTIONS[language]


@lru_cache(maxsize=1)
def chinese_characters() -> tuple[str, ...]:
    """The Chinese characters of all labels and running text, sorted."""
    found = {c for text in (*label_vocabulary(), *_running_text()) for c in text if ord(c) > 0x2E7F}
    return tuple(sorted(found - set(OTHER_PUNCTUATION)))


@lru_cache(maxsize=1)
def character_vocabulary() -> tuple[str, ...]:
    """Every character a screen can show; index 0 is "" and stands for the background (and for spaces)."""
    return ("", *ASCII_CHARACTERS, *OTHER_PUNCTUATION, *chinese_characters())


@lru_cache(maxsize=1)
def character_ids() -> dict[str, int]:
    """Character to its class in `character_vocabulary()`; a space is background."""
    return {character: index for index, character in enumerate(character_vocabulary()) if index}
