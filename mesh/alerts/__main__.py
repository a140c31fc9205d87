"""Writes `rules.yaml`, the rules file of Prometheus."""

from pathlib import Path

from mesh.alerts.rules import render

if __name__ == "__main__":
    Path(__file__).with_name("rules.yaml").write_text(render(), encoding="utf-8")
