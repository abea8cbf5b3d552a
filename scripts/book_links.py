#!/usr/bin/env python3
"""A preprocessor of mdBook: links that lead out of docs/ become links into the repository, for the book does not hold what they name.

    book_links.py REPOSITORY_URL        mdBook calls it; docs/book.toml names it

Standard library only.
"""

import json
import posixpath
import re
import sys

# Of a link or an image, not within code: (start)(target)(end).
LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)]*)?\))")
CODE = re.compile(r"(^\s*```.*?^\s*```|`[^`\n]*`)", re.MULTILINE | re.DOTALL)


def outside(repository, folder):
    def replace(link):
        target = posixpath.normpath(posixpath.join("docs", folder, link[2]))
        if target.startswith("docs/"):
            return link[0]
        return f"{link[1]}{repository}/blob/main/{target}{link[3]}"
    return replace


def mend(item, repository):
    chapter = item.get("Chapter") if isinstance(item, dict) else None
    if chapter is None:
        return
    replace = outside(repository, posixpath.dirname(chapter.get("path") or ""))
    # Every second part is code, which stays as it is.
    parts = CODE.split(chapter["content"])
    chapter["content"] = "".join(part if at % 2 else LINK.sub(replace, part) for at, part in enumerate(parts))
    for below in chapter["sub_items"]:
        mend(below, repository)


def main():
    if sys.argv[2:3] == ["supports"]:
        return
    _context, book = json.load(sys.stdin)
    for item in book.get("items") or book.get("sections"):
        mend(item, sys.argv[1])
    json.dump(book, sys.stdout)


if __name__ == "__main__":
    main()
