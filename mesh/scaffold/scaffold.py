"""Renders the templates: a service of things becomes a service of whatever the name says."""

import keyword
import re
from collections.abc import Iterable
from pathlib import Path

from mesh.codegen import third_party
from mesh.codegen.tools import run
from mesh.errors import StackError

_TEMPLATES = Path(__file__).parent / "templates"
_SUFFIX = ".template"
#: The word that the templates are written about, in all its forms.
_WORD = re.compile("things|Things|THINGS|thing|Thing|THING")


def scaffold(name: str, root: Path) -> list[Path]:
    """Write the service `name` below `root`, and return the new files, relative to it.

    Raises StackError for a name that cannot be one, or that is taken; nothing is written then.
    """
    _check(name, root)
    written = []
    for template in sorted(_TEMPLATES.rglob(f"*{_SUFFIX}")):
        path = Path(_renamed(str(template.relative_to(_TEMPLATES)).removesuffix(_SUFFIX), name))
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(_renamed(template.read_text("utf-8"), name), "utf-8")
        written.append(path)
    return written


def format_protos(paths: Iterable[Path], root: Path) -> None:
    """Format the new protos: a longer name breaks lines elsewhere."""
    third_party.materialise(root)
    for proto in (path for path in paths if path.suffix == ".proto"):
        run(root, "buf", "format", "--write", proto)


def format_python(paths: Iterable[Path], root: Path) -> None:
    """Format the new modules and sort their imports, which needs the generated ones to be there."""
    python = [path for path in paths if path.suffix == ".py"]
    run(root, "ruff", "check", "--quiet", "--select", "I", "--fix", *python)
    run(root, "ruff", "format", "--quiet", *python)


def plural(name: str) -> str:
    """Return the plural of an English noun, by its regular rules."""
    if re.search(r"[^aeiou]y$", name):
        return name[:-1] + "ies"
    return name + ("es" if re.search(r"(s|x|z|ch|sh)$", name) else "s")


def _check(name: str, root: Path) -> None:
    if not re.fullmatch(r"[a-z]{2,30}", name) or keyword.iskeyword(name):
        raise StackError(f"{name!r} cannot be the name of a service", fix="use one lower-case word, such as wishlist")
    if not (root / "protos" / "shop").is_dir():
        raise StackError("this shopmesh was not started from a checkout", fix="run make setup in a clone")
    for taken in (root / f"svc_{name}", root / "protos" / "shop" / name):
        if taken.exists():
            raise StackError(f"{taken.relative_to(root)} exists", fix="choose another name")


def _renamed(text: str, name: str) -> str:
    forms = {"thing": name, "things": plural(name)}
    forms |= {word.capitalize(): form.capitalize() for word, form in forms.items()}
    forms |= {word.upper(): form.upper() for word, form in forms.items()}
    return _WORD.sub(lambda match: forms[match.group()], text)
