"""Recipe settings: dataclasses filled from a YAML file and the command line by transformers' `HfArgumentParser`.

The YAML file sets what the parser would otherwise take as defaults, so that both ways of giving a value go through
the same type converters and the command line always wins. Nothing unknown is accepted in either place.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import types
import typing
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

import yaml
from transformers.hf_argparser import HfArgumentParser

from pess_hf.cli import one_line
from pess_hf.errors import PessError
from pess_hf.late_arguments import LateArguments, help_note
from pess_hf.settings_file import NULL, Setting, StrictLoader, found, read_settings

#: A dataclass whose fields are settings, or what stands for one that is slow to import.
Kind = type | LateArguments

_BOOL = "tag:yaml.org,2002:bool"
_HELP_ALL = ("--help_all", "--help-all")
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}


def parse_recipe_args(
    dataclass_types: Kind | Iterable[Kind], args: Sequence[str] | None = None, description: str | None = None
) -> tuple[Any, ...]:
    """Fill dataclasses from ``--config FILE.yaml`` and from the command line, which wins.

    A top-level ``base: other.yaml`` in the file, relative to it, is read first, and that file's base before it; a
    file's own keys replace the base's, a mapping as a whole. Every other key must be a field of one of the
    dataclasses.

    Args:
        dataclass_types: Dataclasses whose fields are the known keys; no name may occur in two of them. For one that
            is slow to import a `LateArguments`: ``--help`` then shows what is its own, and ``--help_all`` everything.
        args: The command line without the program's name; that of this process by default.
        description: What ``--help`` says first.

    Returns:
        One instance of each dataclass, in the order given.

    Raises:
        PessError: If something in the file, or a value that a dataclass checks itself, is wrong.
        SystemExit: With status 2 after a one-line error if the command line is wrong; with status 0 after help.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class DataArguments:
        ...     data: str
        ...     max_length: int = 512
        >>> (data_args,) = parse_recipe_args(DataArguments, ["--data", "sample", "--max_length", "64"])
        >>> data_args.max_length
        64
    """
    parser = _recipe_parser(dataclass_types, args, description)
    required = parser.waive_required()
    config = parser.parse_strictly(args).config
    values = parser.convert_all(read_settings(config)) if config else {}
    parser.set_defaults(**values)
    for action in required:
        action.required = action.dest not in values
    return _build(parser, args, config)


def given_settings(
    dataclass_types: Kind | Iterable[Kind], args: Sequence[str] | None = None, description: str | None = None
) -> dict[str, Any]:
    """The keys that ``--config`` or the command line sets, converted, without the defaults of the others.

    A recipe that starts another one passes these on.

    Args:
        dataclass_types: As in `parse_recipe_args`.
        args: As in `parse_recipe_args`.
        description: As in `parse_recipe_args`.

    Returns:
        Key -> value; nothing is checked that a dataclass checks itself.

    Raises:
        PessError: As in `parse_recipe_args`.
        SystemExit: As in `parse_recipe_args`.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class DataArguments:
        ...     data: str
        ...     max_length: int = 512
        >>> given_settings(DataArguments, ["--data", "sample"])
        {'data': 'sample'}
    """
    parser = _recipe_parser(dataclass_types, args, description)
    parser.waive_required()
    unset = object()
    namespace = parser.parse_strictly(args, argparse.Namespace(**dict.fromkeys(parser._fields, unset)))
    values = parser.convert_all(read_settings(namespace.config)) if namespace.config else {}
    typed = {name: value for name, value in vars(namespace).items() if name in parser._fields and value is not unset}
    return values | typed


def _recipe_parser(
    dataclass_types: Kind | Iterable[Kind], args: Sequence[str] | None, description: str | None
) -> _RecipeParser:
    """The parser of these dataclasses; a ``--help`` in `args` is answered before what is slow is imported."""
    wanted = [dataclass_types] if isinstance(dataclass_types, type | LateArguments) else list(dataclass_types)
    late = [kind for kind in wanted if isinstance(kind, LateArguments)]
    words = {*(sys.argv[1:] if args is None else args)}
    if late and words & {"-h", "--help"} and not words & set(_HELP_ALL):
        shown = [kind.own if isinstance(kind, LateArguments) else kind for kind in wanted]
        brief = _RecipeParser([kind for kind in shown if kind], True, description=description, epilog=help_note(late))
        brief.waive_required()
        brief.parse_known_args(args)
    loaded = [kind.load() if isinstance(kind, LateArguments) else kind for kind in wanted]
    return _RecipeParser(loaded, bool(late), description=description)


def _build(parser: _RecipeParser, args: Sequence[str] | None, config: str | None) -> tuple[Any, ...]:
    """Let the parser construct the dataclasses; what their own checks refuse is the user's to mend."""
    try:
        parsed = parser.parse_args_into_dataclasses(args, look_for_args_file=False)
    except PessError:
        raise
    except (ValueError, ImportError) as err:
        raise PessError(f"{config or 'command line'}: {one_line(str(err))}") from err
    return tuple(parsed[: len(list(parser.dataclass_types))])


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, and takes a bare percent sign in a help text for what it is."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = super()._get_help_string(action)
        return text and re.sub(r"%%|%\(\w+\)s|%", lambda sign: "%%" if sign[0] == "%" else sign[0], text)


class _RecipeParser(HfArgumentParser):
    """`HfArgumentParser` with a ``--config`` option, one-line errors and no guessing of abbreviated names."""

    def __init__(self, dataclass_types: list[Any], has_late: bool, **kwargs: Any) -> None:
        usage = "%(prog)s [--config FILE.yaml] [--key value ...]"
        super().__init__(dataclass_types, usage=usage, allow_abbrev=False, formatter_class=_HelpFormatter, **kwargs)
        self.add_argument("--config", metavar="FILE.yaml", help="settings to start from; the command line wins")
        if has_late:
            self.add_argument(*_HELP_ALL, action="help", help="show every argument and exit")
        self._hints: dict[str, Any] = {}
        for kind in dataclass_types:
            self._hints |= typing.get_type_hints(kind)
        # The first action of a name: a true flag has a second one, `--no_flag`, that only the command line knows.
        self._fields = {a.dest: a for a in reversed(self._actions) if a.dest in self._hints}

    def waive_required(self) -> list[argparse.Action]:
        """Ask for nothing; the actions that were required."""
        required = [action for action in self._actions if action.required]
        for action in required:
            action.required = False
        return required

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"(--\w+)/--[\w/-]+", r"\1", one_line(message))
        self.exit(2, f"error: {message} (see --help)\n")

    def parse_strictly(
        self, args: Sequence[str] | None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse the command line; anything left over is an error that names the nearest option."""
        filled, left = self.parse_known_args(args, namespace or argparse.Namespace())
        if not left:
            return filled
        name = left[0].split("=")[0]
        if not name.startswith("--"):
            self.error(f"unexpected argument '{left[0]}'")
        options = {option.lstrip("-"): option for option in self._option_string_actions}
        near = _nearest(name.lstrip("-"), options)
        self.error(f"unknown argument {name}" + (f"; did you mean {options[near]}?" if near else ""))

    def convert_all(self, settings: dict[str, Setting]) -> dict[str, Any]:
        """Convert the settings of a file with the types of the fields they are for."""
        for key, setting in settings.items():
            if key not in self._fields:
                near = _nearest(key, self._fields)
                hint = f"did you mean '{near}'?" if near else "see --help for the known keys"
                raise PessError(f"{setting.place}: unknown key '{key}'; {hint}")
        return {key: self._convert(self._fields[key], setting) for key, setting in settings.items()}

    def _convert(self, action: argparse.Action, setting: Setting) -> Any:
        """The value of one setting: null, a mapping, a list of scalars or a scalar."""
        node, hint = setting.node, self._hints[action.dest]
        if node.tag == NULL:
            if action.default is None or _allows(hint, types.NoneType):
                return None
        elif isinstance(node, yaml.MappingNode):
            if _allows(hint, dict):
                return setting.value
        elif isinstance(node, yaml.SequenceNode):
            if action.nargs == "+" or _allows(hint, list):
                return [self._convert_scalar(action, item, setting) for item in node.value]
        else:
            value = self._convert_scalar(action, node, setting)
            return [value] if action.nargs == "+" else value
        raise self._mismatch(action, node, setting)

    def _convert_scalar(self, action: argparse.Action, node: yaml.Node, setting: Setting) -> Any:
        """Convert the scalar as it is written, just as if it had been typed on the command line."""
        if not isinstance(node, yaml.ScalarNode) or node.tag == NULL:
            raise self._mismatch(action, node, setting)
        text = node.value
        if node.tag == _BOOL and _allows(self._hints[action.dest], bool):
            text = str(StrictLoader.bool_values[text.lower()])  # YAML also knows `on` and `off`
        try:
            value = action.type(text) if callable(action.type) else text
        except (argparse.ArgumentTypeError, TypeError, ValueError) as err:
            raise self._mismatch(action, node, setting) from err
        if action.choices is not None and value not in action.choices:
            raise self._mismatch(action, node, setting)
        return value

    def _mismatch(self, action: argparse.Action, node: yaml.Node, setting: Setting) -> PessError:
        expected = _expected(action, self._hints[action.dest])
        return PessError(f"{setting.place}: '{action.dest}' expected {expected}, found {found(node)}")


def _nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like a mistyped one."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)), None)


def _allows(hint: Any, kind: type) -> bool:
    """Whether a type hint, a union or not, has a place for `kind`."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return any(option is Any or (typing.get_origin(option) or option) is kind for option in options)


def _expected(action: argparse.Action, hint: Any) -> str:
    """What a field takes, in words."""
    if action.choices is not None:
        word = "one of " + ", ".join(str(choice) for choice in action.choices)
    elif isinstance(action.type, type) and issubclass(action.type, Enum):
        word = "one of " + ", ".join(str(member.value) for member in action.type)
    elif _allows(hint, dict) and not _allows(hint, str):
        return "a mapping"
    else:
        kind: Any = bool if _allows(hint, bool) else action.type or str
        word = _WORDS.get(kind) or str(getattr(kind, "__name__", kind))
    if action.nargs == "+":
        return f"a list, each item {word}"
    kinds = [word, *(["a list"] if _allows(hint, list) else []), *(["a mapping"] if _allows(hint, dict) else [])]
    return " or ".join(kinds)
