"""A recipe's settings file: YAML read strictly, every key with the place it came from.

Imports neither torch nor transformers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pess_hf.cli import describe_os_error, one_line
from pess_hf.errors import PessError

FLOAT = "tag:yaml.org,2002:float"
TIMESTAMP = "tag:yaml.org,2002:timestamp"
NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True)
class Setting:
    """One top-level key of a settings file: its node, its value and where it stands."""

    file: Path
    line: int
    node: yaml.Node
    value: Any

    @property
    def place(self) -> str:
        """File and line, as error messages begin."""
        return f"{self.file}, line {self.line}"


class StrictLoader(yaml.SafeLoader):
    """`SafeLoader` that refuses a key given twice, reads ``1e-5`` as a number and leaves dates as text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the name and form are PyYAML's
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (FLOAT, TIMESTAMP)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a dict after the check for repeated keys."""
        self.refuse_repeated_keys(node)
        return super().construct_mapping(node, deep)

    def refuse_repeated_keys(self, node: yaml.MappingNode) -> None:
        """Raise at the second of two equal keys, where PyYAML would silently keep the last."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"key '{key.value}' is given twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)


StrictLoader.add_implicit_resolver(
    FLOAT,
    re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)


def found(node: yaml.Node) -> str:
    """What stands in the file, in words."""
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return "null" if node.tag == NULL else f"'{one_line(node.value)}'"


def read_settings(path: str | Path) -> dict[str, Setting]:
    """Read the keys of a YAML file, laid over those of its ``base:`` file if it names one, and so on.

    Args:
        path: The YAML file, a mapping at its top level.

    Returns:
        Each key with its value and the place it came from; ``base`` itself is left out.

    Raises:
        PessError: If a file is missing, empty, not a mapping or not YAML, has a key twice, or is its own base.

    Example:
        >>> _ = Path("run.yaml").write_text("learning_rate: 1e-5")
        >>> read_settings("run.yaml")["learning_rate"].value
        1e-05
    """
    settings: dict[str, Setting] = {}
    place, seen = Path(path), {Path(path).resolve()}
    while True:
        own = _read_one(place)
        base = own.pop("base", None)
        settings = {**own, **settings}
        if base is None:
            return settings
        if not isinstance(base.value, str) or not base.value:
            raise PessError(f"{base.place}: 'base' expected a file name, found {found(base.node)}")
        place = place.parent / base.value  # relative to the file that names it
        if not place.is_file():
            raise PessError(f"{base.place}: 'base' expected a settings file, found none at {place}")
        if place.resolve() in seen:
            raise PessError(
                f"{base.place}: 'base' expected another file, found {base.value}, which has this one as its base"
            )
        seen.add(place.resolve())


def _read_one(path: Path) -> dict[str, Setting]:
    """The keys of one file."""
    try:
        loader = StrictLoader(path.read_text(encoding="utf-8-sig"))
        root = loader.get_single_node()
        if root is None:
            raise PessError(f"{path}: the file is empty; expected lines of the form 'key: value'")
        if not isinstance(root, yaml.MappingNode):
            raise PessError(f"{path}, line 1: expected lines of the form 'key: value', found {found(root)}")
        loader.refuse_repeated_keys(root)
        settings = [(key, _setting(path, key, node, loader)) for key, node in root.value]
        return {key.value: setting for key, setting in settings}
    except OSError as err:
        raise PessError(describe_os_error(err, path)) from err
    except yaml.MarkedYAMLError as err:
        mark = err.problem_mark or err.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise PessError(f"{path}{where}: {one_line(err.problem or str(err))}") from err
    except UnicodeDecodeError as err:
        raise PessError(f"{path}: not UTF-8 text (byte {err.start}); save the file as UTF-8") from err
    except yaml.YAMLError as err:
        raise PessError(f"{path}: {one_line(str(err))}") from err


def _setting(path: Path, key: yaml.Node, node: yaml.Node, loader: StrictLoader) -> Setting:
    """One key with its value."""
    line = key.start_mark.line + 1
    if not isinstance(key, yaml.ScalarNode):
        raise PessError(f"{path}, line {line}: expected a name before the colon, found {found(key)}")
    try:
        return Setting(path, line, node, loader.construct_object(node, deep=True))
    except ValueError as err:  # an explicit tag that its value does not fit, such as `!!int abc`
        raise PessError(f"{path}, line {line}: '{key.value}': {one_line(str(err))}") from err
