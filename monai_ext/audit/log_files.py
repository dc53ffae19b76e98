"""``logging.conf``: Python's ``fileConfig`` evaluates parts of it as code."""

import ast
import configparser
from pathlib import Path

from monai_ext.audit.arguments import why_not_path
from monai_ext.audit.findings import Findings

_CLASSES = frozenset({"StreamHandler", "NullHandler", "logging.StreamHandler", "logging.NullHandler"})
_FILES = frozenset(
    f"{start}{name}"
    for start in ("", "logging.")
    for name in ("FileHandler", "handlers.RotatingFileHandler", "handlers.TimedRotatingFileHandler")
)
_FORMATTERS = frozenset({"logging.Formatter"})
_STREAMS = ("sys.stdout", "sys.stderr", "stdout", "stderr")
_MOST = 2**20


def judge_logging(path: Path, file: str, findings: Findings) -> None:
    """Judge the classes and arguments of handlers and formatters.

    Args:
        path: the file.
        file: its path inside the bundle.
        findings: what is found goes here.
    """
    parser = configparser.ConfigParser()  # with the interpolation that fileConfig uses: it may put words together
    try:
        if path.stat().st_size > _MOST:
            raise ValueError("too large to judge")
        parser.read_string(path.read_bytes().decode("utf-8"))
        for section in parser.sections():
            if section.startswith(("handler_", "formatter_")):
                _section(parser[section], section, file, findings)
    except (configparser.Error, ValueError) as error:
        findings.add(file, "", "form", file, f"cannot be read ({str(error).splitlines()[0]})")


def _section(section: configparser.SectionProxy, name: str, file: str, findings: Findings) -> None:
    handler = name.startswith("handler_")
    kind = section.get("class", "" if handler else "logging.Formatter")
    allowed = _CLASSES | _FILES if handler else _FORMATTERS
    why = "" if kind in allowed else "evaluated as Python, and no plain handler of logging"
    findings.add(file, name, "target", kind, why)
    if not handler:
        return
    for option in ("args", "kwargs"):
        text = section.get(option)
        if text is None:
            continue
        try:
            values = ast.parse(text, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            findings.add(file, f"{name}::{option}", "form", text, "evaluated as Python, and no Python")
            continue
        why = "" if _plain(values) else "evaluated as Python, and more than plain values"
        findings.add(file, f"{name}::{option}", "expression", text, why)
        if kind in _FILES and not why:
            for node in ast.walk(values):
                if (
                    isinstance(node, ast.Constant)
                    and isinstance(node.value, str)
                    and node.value not in ("a", "w", "utf-8")
                ):
                    findings.add(file, name, "write", node.value, why_not_path(node.value))


def _plain(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return True
    if isinstance(node, ast.Attribute | ast.Name):
        return ast.unparse(node) in _STREAMS
    if isinstance(node, ast.Tuple | ast.List):
        return all(map(_plain, node.elts))
    if isinstance(node, ast.Dict):
        return all(key is not None and _plain(key) for key in node.keys) and all(map(_plain, node.values))
    return isinstance(node, ast.UnaryOp) and _plain(node.operand)
