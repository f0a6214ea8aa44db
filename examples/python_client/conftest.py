"""A fixture for tests of whatever talks to ward's servers."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

import ward_client


@pytest.fixture
def start_server() -> Iterator[Callable[..., ward_client.Server]]:
    """ward_client.start() for a program and its arguments.

    What it has started ends with the test, also if that fails, crashes, or hangs until
    it is killed: the test is its owner.
    """
    with contextlib.ExitStack() as servers:
        yield lambda *command: servers.enter_context(ward_client.start(command))
