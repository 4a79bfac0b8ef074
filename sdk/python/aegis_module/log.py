"""Lines in the host's log: `log.info("computed", n=n)`."""

from wit_world.imports.log import Level, enabled, write


def _line(level: Level, message: str, values: dict) -> None:
    write(level, message, [(name, str(value)) for name, value in values.items()])


def is_enabled(level: str) -> bool:
    """Whether lines of a level, such as "debug", go to the log."""
    return enabled(Level[level.upper()])


def trace(message: str, **values) -> None:
    """For who looks for a defect step by step."""
    _line(Level.TRACE, message, values)


def debug(message: str, **values) -> None:
    """For who looks for a defect."""
    _line(Level.DEBUG, message, values)


def info(message: str, **values) -> None:
    """What an operator may want to know."""
    _line(Level.INFO, message, values)


def warn(message: str, **values) -> None:
    """What an operator should know."""
    _line(Level.WARN, message, values)


def error(message: str, **values) -> None:
    """What an operator has to do something about."""
    _line(Level.ERROR, message, values)
