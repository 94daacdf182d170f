"""The API's documentation in a real browser: all of it from this server."""

from typing import Any

import httpx


def test_the_documentation_needs_nothing_from_elsewhere(console: httpx.Client, page: Any) -> None:
    asked = list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{console.base_url}/docs")
    page.wait_for_selector(".opblock")
    assert "Recommendations that count every event" in page.inner_text("body")
    assert any(address.endswith("/openapi.json") for address in asked)
    assert [address for address in asked if not address.startswith((str(console.base_url).rstrip("/"), "data:"))] == []


def test_a_request_can_be_tried_from_it(console: httpx.Client, page: Any) -> None:
    page.goto(f"{console.base_url}/docs")
    page.locator(".opblock", has_text="/health/ready").locator(".opblock-summary-control").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    page.wait_for_selector(".live-responses-table")
    assert '"ready": true' in page.inner_text(".live-responses-table")


def test_a_file_that_is_none_of_its_own_is_not_given(console: httpx.Client) -> None:
    assert console.get("/docs/swagger-ui-bundle.js").status_code == 200
    for name in ("index.html", "..%2f__init__.py", "redoc.standalone.js"):
        assert console.get(f"/docs/{name}").status_code == 404
