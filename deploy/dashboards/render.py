"""Draws a dashboard's panels from a running Prometheus, for where there is no Grafana.

python deploy/dashboards/render.py serving --release 'namespace="ai"' -o dashboard.png
"""

from __future__ import annotations

import argparse
import json
import re
import time
import urllib.parse
import urllib.request
from datetime import datetime
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.dates as mdates
import matplotlib.pyplot as plt
from make import expression
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from panels import DASHBOARDS, Panel

_STEPS = 120
_INK, _FAINT, _PAPER, _PANEL = "#d8d9da", "#34373d", "#111217", "#181b1f"
_COLOURS = ("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#b877d9", "#f2495c", "#8ab8ff", "#ffb357")
_UNITS = {"s": "s", "reqps": "/s", "percentunit": "%", "percent": "%", "celsius": "°C", "watt": "W", "joule": "J"}


def query_range(prometheus: str, expr: str, start_s: float, end_s: float) -> list[dict[str, Any]]:
    """Series of that time, each {"metric": labels, "values": [[unix_s, text], ...]}."""
    parameters = {"query": expr, "start": start_s, "end": end_s, "step": (end_s - start_s) / _STEPS}
    url = f"{prometheus}/api/v1/query_range?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)["data"]["result"]


def draw(axes: Axes, panel: Panel, series: list[tuple[str, list[list[Any]]]]) -> None:
    scale = 100.0 if panel.unit == "percentunit" else 1.0
    unit = _UNITS.get(panel.unit, "")
    axes.set_title(panel.title, loc="left", color=_INK, fontsize=9)
    lines = [
        (label, [datetime.fromtimestamp(float(t)) for t, _ in values], [scale * float(v) for _, v in values])
        for label, values in series
    ]
    if panel.is_stacked and lines:
        times = sorted({t for _, x, _ in lines for t in x})
        stacked = [[dict(zip(x, y, strict=True)).get(t, 0.0) for t in times] for _, x, y in lines]
        axes.stackplot(times, stacked, labels=[label for label, _, _ in lines], colors=_COLOURS, alpha=0.55)
    else:
        for (label, x, y), colour in zip(lines, _COLOURS * len(lines), strict=False):
            axes.plot(x, y, label=label, color=colour, linewidth=1.1)
    if lines:
        axes.legend(
            fontsize=6, loc="upper left", bbox_to_anchor=(0, -0.1), labelcolor=_INK, framealpha=0, ncols=3, borderpad=0
        )
    else:
        axes.text(0.5, 0.5, "No data", transform=axes.transAxes, ha="center", color=_INK, fontsize=8)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} {unit}".rstrip()))
    axes.xaxis.set_major_formatter(mdates.DateFormatter("%H:%M"))
    axes.tick_params(colors=_INK, labelsize=6, length=0)
    axes.set_facecolor(_PANEL)
    axes.grid(color=_FAINT, linewidth=0.5)
    for spine in axes.spines.values():
        spine.set_visible(False)


def legend(template: str, labels: dict[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), template)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dashboard", choices=[dashboard.name for dashboard in DASHBOARDS])
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="(default: %(default)s)")
    parser.add_argument("--release", required=True, help="label matchers of one release")
    parser.add_argument("--minutes", type=float, default=15.0, help="how far back (default: %(default)s)")
    parser.add_argument("-o", "--output", required=True, metavar="PNG")
    options = parser.parse_args()
    (dashboard,) = [d for d in DASHBOARDS if d.name == options.dashboard]
    end_s = time.time()
    start_s = end_s - 60 * options.minutes
    rows = list(dashboard.rows.items())
    columns = max(len(panels) for _, panels in rows)
    figure, grid = plt.subplots(len(rows), columns, figsize=(4 * columns, 2.3 * len(rows)), squeeze=False)
    figure.set_facecolor(_PAPER)
    figure.suptitle(dashboard.title, x=0.012, ha="left", color=_INK, fontsize=13)
    for (_, panels), cells in zip(rows, grid, strict=True):
        for cell in cells[len(panels) :]:
            cell.set_visible(False)
        for panel, cell in zip(panels, cells, strict=False):
            found: list[tuple[str, list[list[Any]]]] = []
            for query in panel.queries:
                expr = expression(query.expr, release=options.release).replace("$__rate_interval", "1m")
                result = query_range(options.prometheus, expr, start_s, end_s)
                found += [(legend(query.legend, series["metric"]), series["values"]) for series in result]
            draw(
                cell,
                panel,
                sorted(found, key=lambda item: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", item[0])]),
            )
            cell.set_xlim(datetime.fromtimestamp(start_s), datetime.fromtimestamp(end_s))
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    figure.savefig(options.output, dpi=85, facecolor=_PAPER)


if __name__ == "__main__":
    main()
