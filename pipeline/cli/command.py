"""What every command has: examples, at the head of its help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


class Command(click.Command):
    """A command whose help begins with examples, each in one line, to be copied."""

    def __init__(self, *arguments: Any, examples: tuple[str, ...], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.examples = examples

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_usage(ctx, formatter)
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")
        self.format_help_text(ctx, formatter)
        self.format_options(ctx, formatter)


def command(*examples: str) -> Callable[[Callable[..., Any]], Command]:
    """Make a command of a function; each example is a whole line that a user may give."""
    return click.command(cls=Command, examples=examples)
