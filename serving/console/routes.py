"""The console: its files, and the read-only answers that only it asks for. Nobody pays for it who does not open it."""

from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, RedirectResponse, Response

PAGE = Path(__file__).parent / "page"

HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
    "cache-control": "no-cache",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
"""Nothing from elsewhere is loaded or run, and a new version is seen at once."""

pages = APIRouter(prefix="/console", include_in_schema=False)


@pages.get("")
async def without_slash() -> Response:
    """Go to where the page's own addresses hold; by a relative address, for a proxy may have put a folder before it."""
    return RedirectResponse("console/", 307)


@pages.get("/{file:path}")
async def file(file: str) -> Response:
    """Return one of the console's files."""
    try:
        path = (PAGE / (file or "index.html")).resolve()
        found = path.is_relative_to(PAGE) and path.is_file()
    except (OSError, ValueError):  # no file can have such a name
        found = False
    if not found:
        raise HTTPException(404, f"the console has no file {file[:80]!r}; it begins at /console/")
    return FileResponse(path, headers=HEADERS)
