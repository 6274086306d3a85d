"""Makes and draws the screens of the synthetic phone."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from PIL import Image

from autoglm_training.world.canvas import Canvas
from autoglm_training.world.draw import Rendering, paint
from autoglm_training.world.elements import SPLITS, Element, Scene, Screen, Split
from autoglm_training.world.labels import APPS
from autoglm_training.world.language import LANGUAGES, Language
from autoglm_training.world.noise import disturbed
from autoglm_training.world.templates import (
    alarms,
    chart,
    chats,
    dialog,
    form,
    home,
    keyboard,
    map,
    player,
    results,
    settings,
    shop,
    thread,
)

__all__ = [
    "SPLITS",
    "TEMPLATES",
    "Element",
    "Rendering",
    "Scene",
    "Screen",
    "Split",
    "build_screen",
    "make_scene",
    "make_screen",
    "render",
    "screenshot",
]

_BUILDERS: dict[str, Callable[[Canvas], None]] = {
    "home": home.build, "settings": settings.build, "chats": chats.build, "thread": thread.build,
    "shop": shop.build, "map": map.build, "player": player.build, "alarms": alarms.build,
    "keyboard": keyboard.build, "dialog": dialog.build, "chart": chart.build, "results": results.build,
    "form": form.build,
}  # fmt: skip
TEMPLATES: tuple[str, ...] = tuple(_BUILDERS)
# English names of the apps each template stands for; None is any app.
TEMPLATE_APPS: dict[str, tuple[str, ...] | None] = {
    "home": (home.HOME_APP,),
    "settings": ("Settings",),
    "chats": ("WeChat", "QQ", "WhatsApp", "Telegram", "Messages"),
    "thread": ("WeChat", "QQ", "WhatsApp", "Telegram", "Messages"),
    "shop": ("Taobao", "JD", "Meituan", "Shop", "Amazon", "Temu"),
    "map": ("Maps", "Amap", "Didi", "Uber"),
    "player": ("Music", "QQ Music", "Spotify"),
    "alarms": ("Clock",),
    "keyboard": ("Notes", "Browser", "Messages", "Phone", "Contacts"),
    "dialog": None,
    "chart": ("Health", "Settings", "Wallet"),
    "results": ("Browser", "Chrome", "Baidu", "Shop", "Maps", "Music"),
    "form": ("Weibo", "Zhihu", "Bilibili", "Reddit", "Discord", "Zoom", "PayPal", "Netflix", "Mail"),
}
_WEIGHTS: dict[str, float] = {"home": 2.0, "settings": 2.0, "shop": 1.6, "chats": 1.3, "chart": 1.2}
# Logical sizes; all multiples of 28. The first is the default one.
SIZES_PX: tuple[tuple[int, int], ...] = ((280, 616), (280, 504), (280, 560), (308, 616), (280, 644))
_SIZE_WEIGHTS = (12, 2, 2, 2, 2)


def app_name(english: str, language: Language) -> str:
    """An app's display name in `language`; names without a translation stay."""
    if language == "en":
        return english
    return next((zh for en, zh in APPS if en == english), english)


def make_scene(
    rng: random.Random,
    split: Split,
    *,
    template: str | None = None,
    language: Language | None = None,
    app: str | None = None,
    must_show: Sequence[str] = (),
) -> Scene:
    """Draws a recipe; the seeds of the splits never meet. `app` is an English name.

    Raises:
        ValueError: the split or the template is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, not {split!r}")
    if template is not None and template not in _BUILDERS:
        raise ValueError(f"template must be one of {TEMPLATES}, not {template!r}")
    chosen = template or rng.choices(TEMPLATES, [_WEIGHTS.get(name, 1.0) for name in TEMPLATES])[0]
    tongue = language or rng.choice(LANGUAGES)
    candidates = TEMPLATE_APPS[chosen] or tuple(en for en, _ in APPS)
    english = app or rng.choice(candidates)
    width_px, height_px = rng.choices(SIZES_PX, _SIZE_WEIGHTS)[0]
    return Scene(
        template=chosen,
        seed=rng.getrandbits(48) * len(SPLITS) + SPLITS.index(split),
        split=split,
        language=tongue,
        app=app_name(english, tongue),
        width_px=width_px,
        height_px=height_px,
        must_show=tuple(must_show),
    )


def build_screen(scene: Scene) -> Screen:
    """Lays a scene out; the same scene gives the same screen."""
    canvas = Canvas(scene)
    _BUILDERS[scene.template](canvas)
    return canvas.finish()


def make_screen(
    rng: random.Random, split: Split, *, template: str | None = None, language: Language | None = None
) -> Screen:
    """A random screen of `split`."""
    return build_screen(make_scene(rng, split, template=template, language=language))


def render(screen: Screen, scale: float = 1.0) -> Rendering:
    """Draws a screen at `scale` (27/7 gives 1080 x 2376 from 280 x 616), some with noise; the grids are always those of
    scale 1.

    Raises:
        ValueError: the scale is not positive.
    """
    drawn = paint(screen.ops, screen.width_px, screen.height_px, screen.background, scale)
    return replace(drawn, image=disturbed(screen.scene, drawn.image))


def screenshot(screen: Screen, scale: float = 27 / 7) -> Rendering:
    """The screen as a model gets it from a phone: drawn at `scale`, then shrunk to the logical size (bicubic).

    Shrunk text is softer than text drawn at its final size; a model should train on both.
    """
    drawn = render(screen, scale)
    image = drawn.image.resize((screen.width_px, screen.height_px), Image.Resampling.BICUBIC)
    return replace(drawn, image=image)
