"""Hypothesis profiles, and the argument `backend` that runs a test on every backend."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from fpemu import backends

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("nightly", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fpemu")
    group.addoption(
        "--backends",
        type=_names,
        metavar="NAME,...",
        help="the backends to test (default: all; one that is unavailable is skipped)",
    )
    group.addoption(
        "--require",
        type=_names,
        default=(),
        metavar="NAME,...",
        help="backends whose absence fails the run",
    )


def pytest_configure(config: pytest.Config) -> None:
    chosen, required = _chosen(config), config.getoption("--require")
    for name in (*chosen, *required):
        if name not in backends.names():
            known = ", ".join(backends.names())
            raise pytest.UsageError(f"there is no backend {name!r} here, only {known}")
    for name in required:
        if name not in chosen:
            raise pytest.UsageError(f"--require names {name!r}, which --backends leaves out")
        if reason := backends.why_not(name):
            raise pytest.UsageError(f"--require: {reason}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with the argument `backend` is run with the name of each backend in turn."""
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", [_parameter(name) for name in _chosen(metafunc.config)])


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _chosen(config: pytest.Config) -> tuple[str, ...]:
    return config.getoption("--backends") or backends.names()


def _parameter(name: str) -> object:
    reason = backends.why_not(name)
    marks = pytest.mark.skip(reason=reason) if reason else ()
    return pytest.param(name, marks=marks)
