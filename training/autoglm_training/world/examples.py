"""Writes the example screenshots at phone resolution: `python -m autoglm_training.world.examples`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from autoglm_training.world.elements import Scene
from autoglm_training.world.screens import build_screen, render

# 280 x 616 becomes 1080 x 2376.
PHONE_SCALE = 27 / 7

EXAMPLES: dict[str, Scene] = {
    "settings": Scene(
        template="settings", seed=4320, split="train", language="en", app="Settings",
        must_show=("Bluetooth", "Wi-Fi"), states=(("Bluetooth", False), ("Wi-Fi", True)), dark=False,
    ),
    "shop": Scene(template="shop", seed=3183, split="train", language="en", app="Shop", dark=False),
    "home": Scene(
        template="home", seed=3006, split="train", language="zh", app="System Home",
        must_show=("微信", "设置", "相机", "地图"),
    ),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Writes one PNG per example; returns the exit status."""
    parser = argparse.ArgumentParser(prog="examples", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("examples"))
    options = parser.parse_args(argv)
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, scene in EXAMPLES.items():
        path = options.folder / f"{name}.png"
        image = render(build_screen(scene), PHONE_SCALE).image
        image.save(path, optimize=True)
        print(f"{path}: {image.width}x{image.height}, {path.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
