"""What README, CONTRIBUTING, SECURITY and docs/ refer to exists: files, links, modules, reasons and messages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddpm_operator.api.reasons import FailureReason

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (ROOT / "inference" / "ddpm_inference", ROOT / "operator" / "ddpm_operator")
TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)

LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"(?<![\w./:<>-])(?:[\w.-]+/)*[\w-]+\.(?:py|sh|j2)\b")
DOTTED = re.compile(r"\bddpm_(?:inference|operator)(?:\.\w+)+")
COMMANDS = ("--", "kubectl ", "ddpm-sample ", "make ", "export ", "python ", "pip ", "helm ", "./")


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(document: Path) -> set[str]:
    """Returns the anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def folders(text: str) -> Iterator[str]:
    """Yields the code spans that begin with a top-level folder of the repository."""
    top = {path.name for path in ROOT.iterdir() if path.is_dir()}
    for span in CODE_SPAN.findall(text):
        if re.fullmatch(r"[\w./-]+", span) and "/" in span and span.partition("/")[0] in top:
            yield span


def names_of(module: Path) -> set[str]:
    """Returns the names that a module defines, its classes' members included."""
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def is_defined(dotted: str) -> bool:
    """Returns whether a dotted name is a module, or a name inside one. Imports nothing, so neither torch nor Ray."""
    package, *parts = dotted.split(".")
    path = next(root for root in PACKAGES if root.name == package)
    for depth, part in enumerate(parts):
        if (path / part).is_dir():
            path /= part
        elif (path / f"{part}.py").is_file():
            rest = parts[depth + 1 :]
            return set(rest) <= names_of(path / f"{part}.py")
        else:
            return False
    return True


def literals() -> str:
    """Returns every string literal of both programs, one a line, with "…" for each placeholder."""
    found = []
    for package in PACKAGES:
        for module in package.rglob("*.py"):
            for node in ast.walk(ast.parse(module.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_links_lead_to_files_and_headings(document: Path) -> None:
    broken = []
    for link in LINK.findall(document.read_text()):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_paths_exist(document: Path) -> None:
    text = document.read_text()
    roots = (ROOT, *PACKAGES, PACKAGES[0] / "ray_backend")
    files = [name for name in FILE.findall(text) if not any((root / name).is_file() for root in roots)]
    assert files + [name for name in folders(text) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_dotted_names_are_defined(document: Path) -> None:
    assert [name for name in DOTTED.findall(document.read_text()) if not is_defined(name)] == []


def test_contributing_lists_every_folder_of_code() -> None:
    code = [path for package in PACKAGES for path in package.iterdir() if (path / "__init__.py").exists()]
    code += [path for folder in ("hack", "tests") for path in (ROOT / folder).iterdir() if path.is_dir()]
    listed = (ROOT / "CONTRIBUTING.md").read_text()
    missing = {path.name for path in code if f"{path.name}/`" not in listed} - {"__pycache__"}
    assert missing == set()


def test_troubleshooting_has_a_heading_for_every_failure_reason() -> None:
    headings = set(re.findall(r"^### (\w+)$", TROUBLESHOOTING.read_text(), re.MULTILINE))
    assert set(FailureReason) - headings == set()


def test_messages_in_troubleshooting_are_those_of_the_code() -> None:
    text, code = FENCE.sub("", TROUBLESHOOTING.read_text()), literals()
    spans = (span for span in CODE_SPAN.findall(re.sub(r"\n  ", " ", text)) if " " in span)
    quoted = [span for span in spans if not span.startswith(COMMANDS) and ": " not in span[:14]]
    pieces = [piece.strip(" .:;,") for span in quoted for piece in span.split("…")]
    # Shorter ones are parts of a sentence that the code puts together, such as "The head pod".
    assert [piece for piece in pieces if len(piece) > 12 and piece not in code] == []
