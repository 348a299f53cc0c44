"""Reads options of Airflow's configuration, and collects the problems, so that all are reported at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeGuard, TypeVar

from crosswind.provider.options import OPTIONS, OptionSupport

__all__ = ["MAX_DAYS", "MAX_SECONDS", "STOCK_SECTION", "AirflowConf", "ConfigReader", "is_positive"]

STOCK_SECTION = "kubernetes_executor"

_SHARED_SECTIONS = ("api_auth", "core", "logging", "operators", "scheduler", "sdk")
"""Sections that Airflow reads without a team's prefix."""

MAX_SECONDS = 1e9
"""Thirty years. Kubernetes counts nanoseconds in 64 bits, and Airflow's own dates end before 1e12 seconds."""
MAX_DAYS = 365_000
"""A thousand years; no database has a date before the year 0."""
_MAX_COUNT = 10**12

T = TypeVar("T")


class AirflowConf(Protocol):
    """The methods used of Airflow's ``conf``, and of an executor's team-aware ``ExecutorConf``."""

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Return an option as text."""
        ...

    def getint(self, *args: Any, **kwargs: Any) -> Any:
        """Return an option as int."""
        ...

    def getboolean(self, *args: Any, **kwargs: Any) -> Any:
        """Return an option as bool."""
        ...

    def getjson(self, *args: Any, **kwargs: Any) -> Any:
        """Return an option as JSON."""
        ...


def is_positive(value: object, most: float = MAX_SECONDS) -> TypeGuard[float]:
    """Return whether a value is a number above 0, neither infinite nor more than ``most``."""
    return isinstance(value, int | float) and 0 < value <= most


class ConfigReader:
    """Reads options; each method returns the default of an option that is wrong, and adds to ``problems``.

    ``conf``: the configuration of the executor, a team's own if it has one. ``shared``: where to read the sections that
    teams share, default ``conf``.
    """

    def __init__(self, conf: AirflowConf, shared: AirflowConf | None = None) -> None:
        self._conf, self._shared = conf, shared or conf
        self.problems: list[str] = []

    def _conf_of(self, section: str) -> AirflowConf:
        return self._shared if section in _SHARED_SECTIONS else self._conf

    def text(self, option: str, default: str = "", section: str = STOCK_SECTION) -> str:
        """Return an option's text, trimmed."""
        return str(self._conf_of(section).get(section, option, fallback=default) or "").strip()

    def flag(self, option: str, default: bool, section: str = STOCK_SECTION) -> bool:
        """Return a boolean."""
        getboolean = self._conf_of(section).getboolean
        return self._read(lambda: bool(getboolean(section, option, fallback=default)), option, default, section)

    def number(self, option: str, default: int, section: str = STOCK_SECTION) -> int:
        """Return an integer."""
        getint = self._conf_of(section).getint
        value = self._read(lambda: int(getint(section, option, fallback=default)), option, default, section)
        if abs(value) <= _MAX_COUNT:
            return value
        bound = f"at most {_MAX_COUNT}" if value > 0 else f"at least {-_MAX_COUNT}"
        return self.add_problem(section, option, f"must be {bound}, not {value}", default)

    def positive(self, option: str, default: int, section: str = STOCK_SECTION) -> int:
        """Return an integer above 0."""
        value = self.number(option, default, section)
        if value > 0:
            return value
        return self.add_problem(section, option, f"must be greater than 0, not {value}", default)

    def seconds(self, option: str, default: float, section: str = "crosswind") -> float:
        """Return a number of seconds above 0."""
        return self._amount(option, default, section, MAX_SECONDS)

    def days(self, option: str, default: float, section: str = "crosswind") -> float:
        """Return a number of days, 0 for ever."""
        if self.text(option, str(default), section) == "0":
            return 0.0
        return self._amount(option, default, section, MAX_DAYS, "; 0 means for ever")

    def _amount(self, option: str, default: float, section: str, most: float, remark: str = "") -> float:
        text = self.text(option, str(default), section)
        value = self._read(lambda: float(text), option, default, section)
        if is_positive(value, most):
            return value
        bound = f"at most {most:.0f}" if value > 0 else "greater than 0"
        return self.add_problem(section, option, f"must be {bound}, not {value}{remark}", default)

    def names(self, option: str, default: str = "", section: str = STOCK_SECTION) -> tuple[str, ...]:
        """Return the parts of a comma-separated list."""
        return tuple(part.strip() for part in self.text(option, default, section).split(",") if part.strip())

    def choice(self, option: str, choices: tuple[T, ...], section: str) -> T:
        """Return one of ``choices``; the first is the default."""
        text = self.text(option, str(choices[0]), section)
        for choice in choices:
            if text == choice:
                return choice
        description = f"must be one of {', '.join(map(str, choices))}, not {text!r}"
        return self.add_problem(section, option, description, choices[0])

    def mapping(self, option: str, section: str = STOCK_SECTION) -> dict[str, Any]:
        """Return a JSON object."""
        getjson = self._conf_of(section).getjson
        value: object = self._read(lambda: getjson(section, option, fallback={}) or {}, option, {}, section)
        if isinstance(value, dict):
            return value
        self.add_problem(section, option, f"must be a JSON object, not {value!r}", None)
        return {}

    def check_refused_options(self) -> None:
        """Add a problem for each option that is set and not supported."""
        for option, (support, remark) in OPTIONS.items():
            if support is OptionSupport.REFUSED and self.text(option):
                self.add_problem(STOCK_SECTION, option, f"is not supported: {remark}", None)

    def check_keys(self, option: str, value: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
        """Add a problem if ``value`` has other keys than ``allowed``."""
        if unknown := sorted(value.keys() - set(allowed)):
            description = f"has {', '.join(unknown)}; only {', '.join(allowed)} are supported"
            self.add_problem(STOCK_SECTION, option, description, None)

    def add_problem(self, section: str, option: str, description: str, default: T) -> T:
        """Record that an option is wrong, and return its default."""
        self.problems.append(f"[{section}] {option} {description}")
        return default

    def _read(self, read: Callable[[], T], option: str, default: T, section: str) -> T:
        try:
            return read()
        except Exception as error:  # Airflow raises exceptions of its own for values that it cannot convert
            return self.add_problem(section, option, f"cannot be read: {error}", default)
