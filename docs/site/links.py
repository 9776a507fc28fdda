"""A hook of mkdocs: links from pages to files outside docs/, which a site does not have.

In a repository browser `[test](../tests/test_config.py)` leads to the file. On the site it does too where `repo_url` is
set in mkdocs.yml, and otherwise only its text is left, as code.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"(?<!!)\[(?P<text>[^\[\]]+)\]\((?P<path>\.\./[^)\s]+)\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    folder = posixpath.dirname(page.file.src_uri)

    def replace(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, link["path"]))
        if path.startswith("docs/"):
            return link[0]
        if config.repo_url:
            return f"[{link['text']}]({config.repo_url.rstrip('/')}/blob/main/{path})"
        return link["text"] if "`" in link["text"] else f"`{link['text']}`"

    return LINK.sub(replace, markdown)
