"""The option `--rasterpipe-operation` of pytest: holds an operation to the contract without a test file.

pytest loads this wherever rasterpipe is installed: it imports nothing until the option is given.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # not of typing, which would be imported

if TYPE_CHECKING:
    import pytest

OPTION = "--rasterpipe-operation"
tests: dict[str, type] = {}
"""Name of a class of tests -> the class, for `pipeline.testing.named`, which pytest collects."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("rasterpipe").addoption(
        OPTION,
        action="append",
        default=[],
        metavar="MODULE:CLASS",
        help="hold an operation of rasterpipe, or a class that inherits from OperationContract, to the contract",
    )


def pytest_configure(config: pytest.Config) -> None:
    names = config.getoption(OPTION)
    if not names:
        return
    for name in names:
        found = _tests_of(name)
        tests[found.__name__] = found
    named = importlib.import_module("pipeline.testing.named").__file__
    if config.args_source is not config.ArgsSource.ARGS:
        config.args[:] = []  # no test files were asked for
    if named not in config.args:
        config.args.append(str(named))


def _tests_of(name: str) -> type:
    """Return the class of tests that an option means."""
    import pytest

    from pipeline.operations.base import Operation
    from pipeline.testing import OperationContract

    module, colon, attribute = name.partition(":")
    if not colon:
        raise pytest.UsageError(f"{OPTION} {name}: must read MODULE:CLASS, for example rasterpipe_power:Power")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise pytest.UsageError(f"{OPTION} {name}: cannot be imported: {type(error).__name__}: {error}") from error
    if isinstance(found, type) and issubclass(found, OperationContract):
        return found
    if isinstance(found, type) and issubclass(found, Operation):
        return type(f"Test{found.__name__}", (OperationContract,), {"operation": found})
    raise pytest.UsageError(f"{OPTION} {name}: is neither an Operation nor an OperationContract")
