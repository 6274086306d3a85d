"""Writes the chart's dashboards: python deploy/dashboards/make.py [FOLDER]"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from panels import DASHBOARDS, Dashboard, Panel

FOLDER = Path(__file__).parents[1] / "helm/autoglm-phone/dashboards"
_COLUMNS = 24
_HEIGHT = 7
_RELEASE = 'namespace="$namespace",app_kubernetes_io_instance="$release"'
# dcgm-exporter's own labels, as Prometheus renames them
_DCGM_RELEASE = 'exported_namespace="$namespace",exported_pod=~"$release-.*triton-.*"'
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def expression(expr: str, *, release: str = _RELEASE, dcgm_release: str = _DCGM_RELEASE) -> str:
    return (
        expr.replace("$dcgm_release", dcgm_release)
        .replace("$release}", release + "}")
        .replace("$release,", release + ",")
    )


def document(dashboard: Dashboard) -> dict[str, Any]:
    """Grafana's model of a dashboard."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in dashboard.rows.items():
        panels.append({"type": "row", "title": title, "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1}, "panels": []})
        width = _COLUMNS // len(row)
        panels += [_panel(panel, {"x": i * width, "y": y + 1, "w": width, "h": _HEIGHT}) for i, panel in enumerate(row)]
        y += 1 + _HEIGHT
    for number, panel in enumerate(panels, start=1):
        panel["id"] = number
    return {
        "uid": f"autoglm-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["autoglm-phone", "triton"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                _variable("namespace", "label_values(vllm:num_requests_running, namespace)"),
                _variable(
                    "release",
                    'label_values(vllm:num_requests_running{namespace="$namespace"}, app_kubernetes_io_instance)',
                ),
            ]
        },
        "panels": panels,
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    return {"name": name, "type": "query", "datasource": _DATASOURCE, "query": query, "refresh": 2, "sort": 1}


def _panel(panel: Panel, position: dict[str, int]) -> dict[str, Any]:
    custom: dict[str, Any] = {"lineWidth": 1, "fillOpacity": 15, "showPoints": "never"}
    if panel.is_stacked:
        custom |= {"stacking": {"mode": "normal"}, "fillOpacity": 40}
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "custom": custom}
    if panel.max_value is not None:
        defaults["max"] = panel.max_value
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.help,
        "datasource": _DATASOURCE,
        "gridPos": position,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + i), "expr": expression(query.expr), "legendFormat": query.legend}
            for i, query in enumerate(panel.queries)
        ],
    }


def text(dashboard: Dashboard) -> str:
    return json.dumps(document(dashboard), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for dashboard in DASHBOARDS:
        (folder / f"{dashboard.name}.json").write_text(text(dashboard), encoding="utf-8")
