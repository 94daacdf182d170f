"""The API's documentation, /docs: Swagger UI from this server, nothing from elsewhere."""

from pathlib import Path

import fastapi_offline
from fastapi import APIRouter, HTTPException
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, Response

STATIC = Path(fastapi_offline.__file__).parent / "static"
FILES = "swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"

HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}
"""The page begins with a script of its own, between its tags."""

docs = APIRouter(prefix="/docs", include_in_schema=False)


@docs.get("")
async def swagger() -> Response:
    """Return the page; its addresses are relative, for a proxy may have put a folder before it."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="recsys",
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="docs/favicon.png",
    )
    page.headers.update(HEADERS)
    return page


@docs.get("/{file}")
async def file(file: str) -> Response:
    """Return one of the files that the page needs, as the package fastapi-offline has them."""
    if file not in FILES:
        raise HTTPException(404, f"the documentation has no file {file[:80]!r}; it begins at /docs")
    return FileResponse(STATIC / file, headers={"cache-control": "max-age=86400"})
