"""What a ``$`` expression would use, from its syntax tree alone."""

import ast
import builtins
import re
from collections.abc import Callable, Mapping, Set

from monai_ext.audit.arguments import why_not_argument, why_not_path, why_not_reader, why_not_text
from monai_ext.audit.name_lists import SAFE_BUILTINS
from monai_ext.audit.names import is_module, why_not_attribute, why_not_import, why_not_name
from monai_ext.audit.references import Entries, absolute, imports_of

MOST_LETTERS = 20_000
REFERENCES = "__local_refs"  # by this name MONAI hands the referred values to an expression
_REFERENCE = re.compile(r"@\w*(?:::\w*)*")
_FLAGS = ("benchmark", "deterministic", "allow_tf32", "enabled")

# Their first argument may be the name of a class that is then imported.
FINDS_CODE = re.compile(
    r"(LoadImage|SaveImage|RandTorchVision|TorchVision|RandTorchIO|TorchIO|RandCuCIM|CuCIM|ImageDataset|PatchInferer"
    r"|WSIReader|PatchWSIDataset|SlidingPatchWSIDataset|MaskedPatchWSIDataset)(d|D|Dict)?"
)
CODE_ARGUMENTS = frozenset({"reader", "writer", "merger_cls", "pickle_module"})
_NOTE = Callable[[str, str, str], None]  # kind, what, why


def as_evaluated(text: str, place: str) -> str:
    """Return an expression as Python would get it: absolute references, as subscripts of a dictionary.

    References are replaced as text, wherever they stand, in strings too, as MONAI does.

    Args:
        text: with its ``$``.
        place: id of the entry, for references such as ``@::sibling``.

    >>> as_evaluated("$@net#size + 1", "a")
    "__local_refs['net::size'] + 1"
    """
    return _REFERENCE.sub(lambda found: f"{REFERENCES}['{found[0][1:]}']", absolute(text, place)[1:])


def why_not_handed_on(path: str) -> str:
    """Return why a dotted name may not be given to something else as a value, ``""`` if it may."""
    why = why_not_name(path)
    if not why and path == "os.environ":
        return "the whole environment handed on; read one variable of it"
    if not why and is_module(path):
        return "a whole module handed on"
    if not why and (path == "torch.load" or FINDS_CODE.fullmatch(path.rpartition(".")[2])):
        return "handed on, so what it will be given cannot be told"
    return why


class ExpressionReader(ast.NodeVisitor):
    """Walk one expression and note every name, import and call that it would use.

    Args:
        aliases: dotted paths that a name may stand for, from the imports of all configurations.
        entries: what references lead to.
        note: called with kind, what and why (``""`` where it is allowed).
    """

    def __init__(self, aliases: Mapping[str, Set[str]], entries: Entries, note: _NOTE) -> None:
        self.aliases, self.entries, self.note = aliases, entries, note
        self.bound: set[str] = set()

    def read(self, text: str, place: str) -> None:
        """Read an expression with its ``$``; one that cannot be read is refused."""
        if len(text) > MOST_LETTERS:
            return self.note("form", text, f"longer than {MOST_LETTERS} letters, too long to judge")
        if REFERENCES in text:
            return self.note("expression", REFERENCES, "it reaches MONAI's own dictionary of values")
        try:
            if imports_of(text) is not None:
                return self._import(ast.parse(text[1:]).body)
            tree = ast.parse(as_evaluated(text, place), mode="eval")
            self.bound = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
            self.bound |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            for name in self.bound & (set(self.aliases) | (set(dir(builtins)) - SAFE_BUILTINS)):
                self.note("expression", name, "it hides a module or built-in of that name; rename the variable")
            self.visit(tree)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            self.note("form", text, "no single Python expression, so what it does cannot be told")

    def path_of(self, node: ast.AST) -> set[str]:
        """Return the dotted paths that a name, reference or chain of attributes may stand for, empty for a value."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.insert(0, node.attr)
            node = node.value
        reference = _reference_of(node)
        if reference is not None:
            roots: Set[str] = self.entries.paths(reference) or set()
        else:
            roots = self.aliases.get(node.id, set()) if isinstance(node, ast.Name) else set()
        return {".".join([root, *parts]) for root in roots}

    def visit_Name(self, node: ast.Name) -> None:
        """Judge a name that stands alone."""
        if node.id in self.aliases:
            self._name(node)
        elif node.id != REFERENCES and node.id not in self.bound and node.id not in SAFE_BUILTINS:
            known = node.id in dir(builtins)
            self.note("expression", node.id, "a built-in that runs, opens or reveals" if known else "an unknown name")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Judge a chain of attributes, by its whole path where it begins with a module."""
        if self.path_of(node):
            return self._name(node)
        reason = why_not_attribute(node.attr)
        if reason:
            self.note("expression", f".{node.attr}", reason)
        elif node.attr in ("numpy", "replace"):
            self.note("expression", f".{node.attr}", "not called, so it may be a module or a function handed on")
        self.visit(node.value)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        """Let single variables of the environment be read, and judge what a reference hands on."""
        reference = _reference_of(node)
        if reference is not None:
            return self._refer(reference)
        if self.path_of(node.value) == {"os.environ"}:
            self.note("read", "os.environ", "")
            return self.visit(node.slice)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Judge what is called with what it gets."""
        paths, done = self.path_of(node.func), False
        if isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr", "hasattr"):
            done = self._by_name(node)
        elif paths == {"os.environ.get"}:
            done = True
            self.note("read", "os.environ", "")
        elif isinstance(node.func, ast.Attribute) and node.func.attr == "eval" and (node.args or node.keywords):
            self.note("expression", ".eval", "with an argument it evaluates text")
        elif isinstance(node.func, ast.Attribute) and not paths:
            done = self._method(node.func, node)
        elif isinstance(node.func, ast.Subscript) and _reference_of(node.func) is None:
            self.note("expression", "[...](...)", "what it calls cannot be told; call it by its name")
        for path in paths:
            self._call_of(path, node)
        for keyword in node.keywords:
            self._keyword(keyword)
        if paths and not done:
            self._name(node.func, called=True)
            done = True
        for child in ast.iter_child_nodes(node):
            if child is not node.func or not done:
                self.visit(child)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Judge text that may be an address or a name of code."""
        if isinstance(node.value, str):
            for kind, why in why_not_text(node.value):
                self.note(kind, node.value, why)

    def generic_visit(self, node: ast.AST) -> None:
        """Refuse the forms of Python that configurations need not."""
        if isinstance(node, ast.NamedExpr | ast.Yield | ast.YieldFrom | ast.Await):
            self.note("expression", type(node).__name__, "a form that hides what a name stands for")
        super().generic_visit(node)

    def _name(self, node: ast.expr, called: bool = False) -> None:
        for path in self.path_of(node):
            calls_finder = called and path != "os.environ"
            self.note("expression", path, why_not_name(path) if calls_finder else why_not_handed_on(path))

    def _refer(self, reference: str) -> None:
        if self.entries.paths(reference) is None:
            why = "no entry of the bundle, so what it stands for cannot be told"
            self.note("expression", f"@{reference}", why)
        for path in sorted(self.entries.handed_on(reference)):
            self.note("expression", path, why_not_handed_on(path))

    def _method(self, function: ast.Attribute, node: ast.Call) -> bool:
        """Judge the two methods whose names alone do not tell what they do; return whether this is one of them."""
        if function.attr == "replace":
            # Of text with two arguments, of a date with keywords; a path's moves a file.
            text = len(node.args) > 1 and not any(isinstance(one, ast.Starred) for one in node.args)
            date = not node.args and all(one.arg not in (None, "target") for one in node.keywords)
            if not text and not date:
                self.note("expression", ".replace", "of a path it moves a file over another")
        elif function.attr != "numpy":
            return False
        self.visit(function.value)
        return True

    def _by_name(self, node: ast.Call) -> bool:
        """Judge ``getattr(x, "name")`` like ``x.name``; flags of cuDNN may be set."""
        what = node.args[1] if len(node.args) > 1 and not node.keywords else None
        name = what.value if isinstance(what, ast.Constant) and isinstance(what.value, str) else None
        function = node.func.id if isinstance(node.func, ast.Name) else ""
        if name is None:
            self.note("expression", function, "the attribute that it asks for cannot be told")
            return True
        if function == "setattr" and (self.path_of(node.args[0]) != {"torch.backends.cudnn"} or name not in _FLAGS):
            self.note("expression", function, "it changes something else than a flag of torch.backends.cudnn")
            return True
        if function == "setattr":
            node.args = node.args[2:]
            self.note("expression", f"torch.backends.cudnn.{name}", "")
        else:
            self.visit(ast.Attribute(node.args[0], name, ast.Load()))
            node.args = node.args[2:]
        return True

    def _call_of(self, path: str, node: ast.Call) -> None:
        if path == "torch.load":
            safe = [k for k in node.keywords if k.arg == "weights_only"]
            if not (safe and isinstance(safe[0].value, ast.Constant) and safe[0].value.value is True):
                self.note("expression", path, "without weights_only=True it runs what a pickle says")
        first = node.args[0] if node.args else None
        text = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None
        if path in ("torch.save", "os.makedirs"):
            self.note("write", text or f"(computed, by {path})", why_not_path(text) if text else "")
        elif path in ("torch.load", "nibabel.load", "glob.glob", "os.listdir", "json.load"):
            self.note("read", text or f"(computed, by {path})", why_not_path(text) if text else "")
        if FINDS_CODE.fullmatch(path.rpartition(".")[2]):
            for argument in node.args:
                self._names_code(path, argument)
            for keyword in node.keywords:
                if keyword.arg in (None, "name"):
                    self._names_code(path, keyword.value)

    def _keyword(self, keyword: ast.keyword) -> None:
        if keyword.arg in CODE_ARGUMENTS:
            self._names_code(keyword.arg, keyword.value)
        why = why_not_argument(
            keyword.arg or "", keyword.value.value if isinstance(keyword.value, ast.Constant) else ...
        )
        if why:
            self.note("argument", str(keyword.arg), why)

    def _names_code(self, name: str, node: ast.expr) -> None:
        value = node.value if isinstance(node, ast.Constant) else None
        static = isinstance(node, ast.Constant) and (not isinstance(value, str) or not why_not_reader(value))
        static |= isinstance(value, str) and name != "reader" and bool(re.fullmatch("[A-Z][A-Za-z]+", value))
        if not static and not self.path_of(node):
            self.note("argument", name, "it may name code that is imported, and cannot be told")

    def _import(self, body: list[ast.stmt]) -> None:
        if len(body) > 1:
            self.note("form", "import", "more than one statement")
        first = body[0]
        names = [one.name for one in first.names]  # type: ignore[attr-defined]
        if isinstance(first, ast.ImportFrom):
            module = "." * first.level + (first.module or "")
            for name in names:
                self.note("import", f"{module}.{name}", why_not_import(module, name))
        else:
            for name in names:
                self.note("import", name, why_not_import(name))


def _reference_of(node: ast.AST) -> str | None:
    """Return the id of a reference of MONAI, as `as_evaluated` writes it; ``None`` for anything else."""
    if not isinstance(node, ast.Subscript) or not isinstance(node.value, ast.Name) or node.value.id != REFERENCES:
        return None
    return node.slice.value if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str) else None
