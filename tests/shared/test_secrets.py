"""Nothing secret is compared with `==`, which ends at the first byte that differs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path for part in ("shared", "origin", "worker") for path in ROOT.glob(f"{part}/**/*.py")
)
SECRET = re.compile(
    r"(?:^|_)(?:api_key|bearer|check|credentials|csrf|mac|password|presented|secret|signature|token)$"
)
PUBLIC = {
    # A token of a text, and the number of a lease.
    ("origin/engine/generation.py", "token in self.model.ends"),
    ("origin/stores/memory_jobs.py", "job.token != lease.token"),
    # What the operator has set, as it is read.
    ("origin/settings.py", "self.previous_secret == self.secret"),
    ("shared/keys.py", "secret != secret.strip()"),
    # Whose key it is has been found by then, and this one is in the documentation.
    ("shared/keys.py", "api_key == DEVELOPMENT_API_KEY"),
}
"""Comparisons of what is named like a secret and is none, or that nobody outside can time."""


def compared(path: Path) -> Iterator[str]:
    """Comparisons by value, or by membership, of what is named like a secret."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Compare) and any(
            isinstance(each, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for each in node.ops
        ):
            named = (
                ast.unparse(each).rpartition(".")[2] for each in (node.left, *node.comparators)
            )
            if any(SECRET.search(name) for name in named):
                yield ast.unparse(node)


def test_secrets_are_compared_in_constant_time() -> None:
    """By `hmac.compare_digest` alone."""
    found = {(str(path.relative_to(ROOT)), each) for path in MODULES for each in compared(path)}
    assert found == PUBLIC


def test_the_rule_sees_what_it_is_for(tmp_path: Path) -> None:
    """And not what is only about a secret."""
    path = tmp_path / "module.py"
    path.write_text("a.token == b\nx != api_key\ncsrf in y\ntoken is None\nlen(token) == 3\n")
    assert list(compared(path)) == ["a.token == b", "x != api_key", "csrf in y"]
