"""Measurements of this module, on the host's /metrics: `metrics.add("placed", kind="walk")`."""

from wit_world.imports import metrics


def add(name: str, value: float = 1.0, /, **labels) -> None:
    """Adds to a counter."""
    metrics.add(name, float(value), _pairs(labels))


def observe(name: str, value: float, /, **labels) -> None:
    """Has a histogram observe a value."""
    metrics.observe(name, float(value), _pairs(labels))


def _pairs(labels: dict) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in labels.items()]
