"""What all tests share.

Hypothesis draws the same examples every time, and does not time them. In continuous integration,
which says so by the environment variable MICROBN_CI, a skip fails the session unless we expect it.
"""

import os

import pytest
from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")

EXPECTED = (  # what the reason of such a skip begins with
    "dot is not on PATH",
    "could not import 'torch'",
    "no Chromium on PATH",
    "could not import 'matplotlib'",  # the extras examples and docs: CI tests these by themselves
    "the extra docs is not installed",
)


@pytest.fixture
def no_dot(monkeypatch):
    """Nothing but what pip installs with microbn itself: no program dot, no extra ``png``."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("microbn.graph.layout.resvg_py", None)


def pytest_configure(config):
    if os.environ.get("MICROBN_CI"):
        config.pluginmanager.register(Watch())


class Watch:
    """Notes every skip, of a test or of a whole module, and fails the session for it."""

    def __init__(self):
        self.unexpected = []

    def pytest_runtest_logreport(self, report):
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            if not reason.startswith(EXPECTED):
                self.unexpected.append(f"{report.nodeid}: {reason}")

    pytest_collectreport = pytest_runtest_logreport

    def pytest_sessionfinish(self, session):
        if self.unexpected and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        for skip in self.unexpected:
            terminalreporter.write_line(f"UNEXPECTED SKIP {skip}", red=True)
