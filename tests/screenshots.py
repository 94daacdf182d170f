"""Write each page of the console as a picture, in both themes, at a desk's and a phone's width, into screenshots/.

python tests/screenshots.py [HOME]: serves a copy of a home, the demo's unless one is named; in a folder of its own under /tmp.
"""

import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from browser import DESK, PHONE, ROOT, chromium, missing, serving, url

from serving.console.routes import PAGE

FOLDER = ROOT / "screenshots"
PAGES = re.findall(r'^  \["([a-z]+)", "', (PAGE / "app.js").read_text(), re.M)
"""Listed in app.js, and nowhere else."""

SIZES = {"desk": DESK, "phone": PHONE}


def somebody(client: Any) -> dict[str, dict[str, str]]:
    """Return what the pages that are about somebody are opened with."""
    found = client.get("/v1/console/people", params={"k": 1}).json()["people"]
    return {name: {"user": found[0]["user"]} for name in ("live", "people") if found}


def main(home: Path) -> None:
    if wrong := missing():
        sys.exit(f"error: {wrong}")
    if not (home / "releases").is_dir():
        sys.exit(f"error: there is no home with releases at {home}; make the demo's with: make demo, or name another")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    with tempfile.TemporaryDirectory(prefix="recsys-screenshots-") as beside:
        copy = Path(shutil.copytree(home, Path(beside) / "home", ignore=shutil.ignore_patterns("redis")))
        with serving(copy) as client, chromium() as browser:
            about = somebody(client)
            for theme in ("light", "dark"):
                for size, (width, height) in SIZES.items():
                    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
                    for name in PAGES:
                        page = context.new_page()
                        page.goto(url(client, name, **about.get(name, {})))
                        page.wait_for_selector("main h1")
                        page.wait_for_timeout(1500)
                        path = FOLDER / f"{name}-{theme}-{size}.png"
                        page.screenshot(path=path, full_page=size == "phone")
                        print(path.relative_to(ROOT))
                        page.close()
                    context.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".demo")
