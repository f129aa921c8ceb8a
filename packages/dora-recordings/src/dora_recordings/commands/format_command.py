"""Command whose options depend on the format that is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand

from dora_cli import output
from dora_cli.command import Command, function_command
from dora_cli.errors import CommandFailed
from dora_config import plugins
from dora_config.plugins import Group, PluginError
from dora_recordings.conversion import CannotConvert


class _Format(Command):
    """Runs the function of a format; protects its input files, and reports failures."""

    def invoke(self, ctx: Any) -> Any:
        """Raise CannotConvert if the function would write to a file that it reads."""
        # Typer before 0.29 converts texts to paths after this point
        inputs = _paths(ctx, [one for one in self.params if isinstance(one, TyperArgument)])
        targets = _paths(ctx, [one for one in self.params if "--output" in one.opts])
        existing = [path for path in targets if path.exists()]
        for target in existing:
            if any(_is_same(one, target) for one in inputs):
                raise CannotConvert(f"{target} is read and written; choose another path with -o")
        try:
            return super().invoke(ctx)
        except CommandFailed:  # some messages were not converted
            raise
        except BaseException:
            for target in targets:
                if target not in existing and target.exists():
                    output.warn(f"{target} is incomplete; remove it")
            raise


def _paths(ctx: Any, parameters: list[Any]) -> list[Path]:
    values = [ctx.params.get(one.name) for one in parameters]
    flat = [
        one for value in values for one in (value if isinstance(value, list | tuple) else [value])
    ]
    return [Path(one) for one in flat if isinstance(one, str | Path)]


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and one.samefile(other)


class FormatCommand(TyperCommand):
    """Runs the function of a plug-in; `word` is the option that names it."""

    def __init__(self, name: str, help: str, word: str, group: Group, default: str = "") -> None:
        super().__init__(name, help=help)
        self.word = word
        self._group = group
        self._default = default

    def formats(self) -> list[str]:
        """Return the names of the installed formats."""
        return plugins.installed().names(self._group)

    def of(self, name: str) -> Any:
        """Return the command of a format. Raises PluginError if it is not usable."""
        command = plugins.load(self._group, name, self._command)
        command.params.append(self._option())
        command.help = f"{self.help}\n\n`{name}`: {command.help or ''}"
        return command

    def _command(self, function: Callable[..., None]) -> Any:
        command = function_command(self.name or "", function, cls=_Format)
        if not any(isinstance(one, TyperArgument) for one in command.params):
            raise TypeError("its function has no argument for files")
        return command

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        """Parse the arguments for the named format, or for the default."""
        try:
            command = self._chosen(self._named(args) or self._of_file(args))
        except (PluginError, typer.BadParameter):
            if not extra.get("resilient_parsing"):
                raise
            self.params = [self._option()]
            return super().make_context(info_name, args, parent, **extra)
        return command.make_context(info_name, args, parent, **extra)

    def _chosen(self, name: str) -> Any:
        formats = ", ".join(self.formats())
        if not name and "," in formats:
            raise typer.BadParameter(f"give {self.word} FORMAT: {formats}")
        name = name or formats or next(iter(plugins.known_names(self._group)))
        known = plugins.installed().find(self._group, name) is not None
        if not known and plugins.missing(self._group, name) is None:
            message = f"{name!r} is not a format that is installed: {formats}"
            raise typer.BadParameter(message, param_hint=f"'{self.word}'")
        return self.of(name)

    def _of_file(self, args: list[str]) -> str:
        """Return the format that reads one of the files, else the format without a condition."""
        if self._default or not args:
            return ""
        silent = []
        for name in self.formats():
            try:
                reads = getattr(plugins.load(self._group, name), "reads", None)
            except PluginError as error:  # another format may read the file
                output.warn(str(error))
                continue
            if reads is None:
                silent.append(name)
            elif any(reads(Path(word)) for word in args):
                return name
        return silent[0] if len(silent) == 1 else ""

    def _named(self, args: list[str]) -> str:
        before = args[: args.index("--")] if "--" in args else args
        for index, word in enumerate(before):
            if word == self.word:
                return before[index + 1] if index + 1 < len(before) else ""
            if word.startswith(f"{self.word}="):
                return word.partition("=")[2]
        return self._default

    def _option(self) -> Any:
        """Return the option that names the format; it is not an argument of the function."""
        names = self.formats()
        chosen = f", default {self._default}" if self._default else ""
        text = f"Format{chosen}: {', '.join(names)}; with --help its options."
        option: Any = typer.Option(
            None,
            self.word,
            metavar="FORMAT",
            help=text,
            expose_value=False,
            autocompletion=lambda: names,
        )

        def only(named: str | None = option) -> None:
            raise NotImplementedError

        return function_command("", only).params[0]
