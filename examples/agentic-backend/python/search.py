"""The library, in Python: `web::search` finds pages by full text, and `agents::librarian` puts reports on the same shelf.

At the start it walks through a small web, from link to link, and indexes what it finds with SQLite's FTS5. It must not know
who searches.
"""

import os
import sqlite3
import sys
import threading
from html.parser import HTMLParser
from urllib.parse import urljoin
from urllib.request import urlopen

from iii import InitOptions, register_worker

WEB = os.environ.get("WEB_URL", "http://127.0.0.1:3111/web/index.html")

shelf = sqlite3.connect(":memory:", check_same_thread=False)
shelf.execute("CREATE VIRTUAL TABLE pages USING fts5(url UNINDEXED, title, text, tokenize = 'porter')")
lock = threading.Lock()


class Reader(HTMLParser):
    """Title, text and links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.title, self.text, self.links = "", [], []
        self.inside: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.inside.append(tag)
        if tag == "a" and (href := dict(attrs).get("href")):
            self.links.append(href)

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if "title" in self.inside:
            self.title += data
        elif "article" in self.inside and "script" not in self.inside:
            self.text.append(data)


def put(url: str, title: str, text: str) -> None:
    with lock, shelf:
        shelf.execute("DELETE FROM pages WHERE url = ?", (url,))
        shelf.execute("INSERT INTO pages VALUES (?, ?, ?)", (url, title, text))


def crawl(start: str) -> int:
    """Follows links as long as they stay below where it began; how many pages there are."""
    below, seen, ahead = urljoin(start, "."), set(), [start]
    while ahead:
        url = ahead.pop()
        if url in seen or not url.startswith(below):
            continue
        seen.add(url)
        with urlopen(url, timeout=10) as answer:
            page = Reader()
            page.feed(answer.read().decode())
        if text := " ".join(" ".join(page.text).split()):
            put(url, page.title.strip(), text)
        ahead += [urljoin(url, link).split("#")[0] for link in page.links]
    return len(seen)


def search(data: dict) -> dict:
    """Pages that have any word of the query, the best first, and reports that were written before."""
    words = "".join(c if c.isalnum() else " " for c in data["query"]).split()
    query = " OR ".join(f'"{word}"' for word in words if len(word) > 2)
    if not query:
        return {"results": [], "reports": []}
    found = (
        "SELECT url, title, snippet(pages, 2, '', '', ' … ', 12) FROM pages"
        " WHERE pages MATCH ? AND url LIKE ? ORDER BY bm25(pages, 0, 4, 1) LIMIT ?"
    )

    def look(kind: str) -> list[dict]:
        with lock:
            rows = shelf.execute(found, (query, f"{kind}:%", data.get("limit", 5))).fetchall()
        return [{"url": url, "title": title, "snippet": snippet} for url, title, snippet in rows]

    return {"results": look("http"), "reports": look("report")}


def librarian(event: dict) -> dict:
    """Puts a report on the shelf as soon as it is there."""
    report = event["new_value"]
    put(f"report:{event['key']}", report["topic"], " ".join(report["summary"]))
    with lock:
        (count,) = shelf.execute("SELECT count(*) FROM pages WHERE url LIKE 'report:%'").fetchone()
    return {"reports": count}


print(f"{crawl(WEB)} pages of {WEB}", flush=True)
iii = register_worker(os.environ.get("III_URL", "ws://127.0.0.1:49134"), InitOptions(worker_name="library"))
iii.register_function("web::search", search, description="Finds pages by full text, the best first")
iii.register_function("agents::librarian", librarian, description="Puts a report on the shelf")

# Whoever started us holds our standard input; when that ends, so do we.
sys.stdin.read()
iii.shutdown()
