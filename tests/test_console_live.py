"""Live and Users / Items in a real browser: what is shown is what the API answers."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from browser import PHONE, serving, url
from test_console_people import ids, send

SHOWN = """([pane, ids]) => {
  const films = [...document.querySelectorAll(".pane")[pane].querySelectorAll("li.film")];
  return films.map((one) => one.dataset.item).join() === ids.join();
}"""
RUNNING = """new Promise((done) => {
  const list = document.querySelector(".wall");
  new MutationObserver(() => done(list.getAnimations({ subtree: true }).length)).observe(list, { childList: true });
  document.querySelector("li.film:nth-child(4) button.poster").click();
})"""
DRAWN = """async () => {
  const { art } = await import("./lib/poster.js");
  const plain = (item) => art(item).outerHTML.replace(/g\\d+/g, "g");
  const genres = ["Sci-Fi", "Action", "Adventure", "Animation", "Comedy", "Crime", "Documentary", "Drama", "Family", "Fantasy", "Horror",
    "Musical", "Music", "Mystery", "Romance", "Thriller", "War", "Western", "History", "Biography", "Sport", "Film-Noir", "none of these"];
  return genres.map((genre) => ["a", "a", "b"].map((id) => plain({ item_id: id, title: "T", genres: [genre] })));
}"""


def wall(page: Any, pane: int = 0) -> list[str]:
    """Return the films on a wall, in the order in which they stand there."""
    films: list[str] = page.locator(".pane").nth(pane).locator("li.film").evaluate_all("(all) => all.map((one) => one.dataset.item)")
    return films


def recommended(client: httpx.Client, user: str, k: int = 24) -> list[str]:
    return ids(client.get(f"/v1/recommend/{quote(user, safe='')}?k={k}&explain=true").json()["items"])


def until(page: Any, films: list[str], pane: int = 0) -> None:
    """Wait for a wall that shows just these."""
    page.wait_for_function(SHOWN, arg=[pane, films], timeout=20_000)


def opened(page: Any, client: httpx.Client, **params: str) -> Any:
    page.goto(url(client, "live", **params))
    page.wait_for_selector("li.film")
    return page


def test_a_tap_reorders_the_wall_and_it_shows_what_the_api_answers(console: httpx.Client, page: Any) -> None:
    opened(page, console, user="tapper")
    before = wall(page)
    assert before == recommended(console, "tapper")
    played = next(id for id in before if id.startswith("cr"))
    page.click(f'li[data-item="{played}"] button.poster')
    page.wait_for_function("() => document.querySelector('.live-said').textContent.includes('You played')")
    after = wall(page)
    assert after == recommended(console, "tapper") != before
    assert played not in after
    assert after[0].startswith("cr")
    place = {id: at for at, id in enumerate(before)}
    for at, id in enumerate(after):
        mark = page.locator(f'li[data-item="{id}"] .move')
        gained = place[id] - at if id in place else None
        assert mark.is_visible() == (gained != 0)
        if gained != 0:
            assert mark.inner_text() == ("new" if gained is None else f"▲ {gained}" if gained > 0 else f"▼ {-gained}")
    because = page.locator(f'li[data-item="{after[0]}"] .because').inner_text()
    title = next(item["title"] for item in console.get(f"/v1/console/about?item={played}").json()["items"])
    assert because == f"because you watched {title.rpartition(' (')[0]}"
    assert page.locator(f'li[data-item="{after[0]}"] .source').inner_text() == "◎\nyour taste"
    assert "ms" in page.locator('[data-time="tap"] b').inner_text()
    assert "ms" in page.locator('[data-time="list"] b').inner_text()
    assert page.locator(".events .event").first.inner_text().startswith("▶ played")


def test_like_and_not_for_me_count_and_undo_takes_the_last_back(console: httpx.Client, page: Any) -> None:
    opened(page, console, user="fickle")
    first = wall(page)
    page.locator("li.film").nth(2).get_by_role("button", name="Like").click()
    until(page, recommended(console, "fickle"))
    page.wait_for_function("() => document.querySelectorAll('.events .event').length === 1")
    liked = wall(page)
    assert liked != first
    page.locator("li.film").nth(0).get_by_role("button", name="Not for me").click()
    page.wait_for_function("() => document.querySelectorAll('.events .event').length === 2")
    until(page, recommended(console, "fickle"))
    assert wall(page) != liked
    page.get_by_role("button", name="Undo").click()
    until(page, liked)
    page.wait_for_function("() => document.querySelectorAll('.events .event.gone').length === 2")
    page.keyboard.press("u")
    until(page, first)
    assert page.get_by_role("button", name="Undo").is_disabled()
    assert [event["event_type"] for event in console.get("/v1/console/person?user=fickle").json()["events"]] == [
        "undo",
        "undo",
        "dislike",
        "like",
    ]


def test_undo_pressed_faster_than_it_is_answered_takes_each_tap_back_once(console: httpx.Client, page: Any) -> None:
    send(console, "hasty", "ro5", "like")
    opened(page, console, user="hasty")
    for place in (0, 2):
        page.locator("li.film").nth(place).locator('[data-tap="like"]').click()
        page.wait_for_function("(n) => document.querySelectorAll('.events .event').length === n", arg=2 + place // 2)
    page.evaluate(
        "() => { for (let n = 0; n < 5; n += 1) document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'u', bubbles: true })); }"
    )
    page.wait_for_function("() => document.querySelectorAll('.events .event').length >= 5")
    page.wait_for_timeout(500)
    kinds = [event["event_type"] for event in console.get("/v1/console/person?user=hasty").json()["events"]]
    assert sorted(kinds) == ["like", "like", "like", "undo", "undo"]
    assert page.locator("button.undo").is_disabled()


def test_a_double_click_is_one_tap(console: httpx.Client, page: Any) -> None:
    opened(page, console, user="doubly")
    page.locator("li.film button.poster").nth(2).dblclick()
    page.wait_for_function("() => document.querySelector('.live-said').textContent.includes('You played')")
    page.wait_for_timeout(300)
    assert len(console.get("/v1/console/person?user=doubly").json()["events"]) == 1


def test_a_double_click_takes_one_event_back(console: httpx.Client, page: Any) -> None:
    for earlier in (60, 30):
        send(console, "twice", "ro7", "play", time.time() - earlier)
    opened(page, console, user="twice")
    page.get_by_label("Take back").first.dblclick()
    page.wait_for_function("() => document.querySelectorAll('.events .event').length >= 3")
    page.wait_for_timeout(500)
    kinds = [event["event_type"] for event in console.get("/v1/console/person?user=twice").json()["events"]]
    assert sorted(kinds) == ["play", "play", "undo"]


def test_whoever_taps_by_keyboard_stays_on_the_wall(console: httpx.Client, page: Any) -> None:
    opened(page, console, user="typist")
    for kind in ("play", "dislike"):
        before = wall(page)
        page.locator(f'li.film:nth-child(3) [data-tap="{kind}"]').press("Enter")
        page.wait_for_function("(gone) => !document.querySelector(`li.film[data-item=${gone}]`)", arg=before[2])
        there = "(() => { const at = document.activeElement; return [at.closest('li.film')?.dataset.item, at.dataset.tap]; })()"
        assert page.evaluate(there) == [wall(page)[2], kind]


def test_a_title_of_any_length_leaves_room_for_the_others(own: Path, page: Any) -> None:
    with serving(own) as client:
        for id, title in (("endless", "Wanderings " * 40), ("nameless", "")):
            client.put(f"/v1/items/{id}", json={"title": title, "genres": ["Crime"]}).raise_for_status()
        time.sleep(0.3)
        for id in ("endless", "nameless"):
            send(client, "reader", id)
        opened(page, client, user="reader")
        page.wait_for_selector(".events .event")
        titles = page.locator(".events .event-title").all_inner_texts()
        assert "nameless" in titles
        assert max(map(len, titles)) == 60
        assert page.locator(".because").first.inner_text().count("Wanderings") < 10


def test_an_event_from_another_client_appears_without_a_reload(console: httpx.Client, page: Any) -> None:
    opened(page, console, user="watched")
    page.wait_for_function("() => document.querySelector('.profile-name')?.textContent === 'watched'")
    page.evaluate("window.same = true")
    send(console, "watched", "ro2")
    page.wait_for_selector(".events .event", timeout=20_000)
    assert "Two for Tea" in page.locator(".events .event").first.inner_text()
    until(page, recommended(console, "watched"))
    assert page.locator(".live-said").inner_text().startswith("From another client: played “Two for Tea”.")
    assert page.evaluate("window.same") is True


def test_two_people_side_by_side_and_what_is_on_both_walls_says_so(console: httpx.Client, page: Any) -> None:
    send(console, "first", "ro1")
    send(console, "second", "cr1")
    opened(page, console, user="first", **{"with": "second"})
    for place, user in enumerate(("first", "second")):
        until(page, recommended(console, user, 12), place)
    both = set(wall(page, 0)) & set(wall(page, 1))
    page.wait_for_function("() => document.querySelector('.common-told').textContent.includes('both walls')")
    assert page.locator(".common-told").inner_text().startswith(f"{len(both)} of 12 films")
    for place in (0, 1):
        marked = (
            page.locator(".pane")
            .nth(place)
            .locator("li.film:has(.common:not([hidden]))")
            .evaluate_all("(all) => all.map((one) => one.dataset.item)")
        )
        assert set(marked) == both
    page.locator(".pane").nth(1).locator("li.film").first.locator("button.poster").click()
    until(page, recommended(console, "second", 12), 1)
    until(page, recommended(console, "first", 12), 0)


def test_two_releases_side_by_side(console: httpx.Client, page: Any) -> None:
    opened(page, console, user="p2")
    page.get_by_role("button", name="Two releases").click()
    page.wait_for_function(
        "() => document.querySelectorAll('.pane').length === 2 && document.querySelectorAll('.pane')[1].querySelector('li.film')"
    )
    until(page, recommended(console, "p2", 12), 0)
    until(page, ids(console.get("/v1/console/list?user=p2&release=000001&k=12").json()["items"]), 1)
    assert wall(page, 0) != wall(page, 1)
    assert (
        page.locator(".pane-head").nth(1).inner_text() == "release 000001\nwould show"
        or "would show" in page.locator(".pane-head").nth(1).inner_text()
    )
    page.reload()
    page.wait_for_selector("li.film")
    assert page.locator(".pane").count() == 2


def test_a_person_is_searched_invented_or_drawn(console: httpx.Client, page: Any) -> None:
    opened(page, console, user="p3")
    field = page.get_by_role("combobox")
    field.fill("nobody like that")
    # the field had the focus first: until what was typed is answered, the note may be of the people drawn by chance
    page.locator(".options-note", has_text="No profile's name holds “nobody like that” (all profiles looked at).").wait_for()
    field.press("Enter")  # taken as a new person
    page.wait_for_function("() => document.querySelector('.who-name').textContent === 'nobody like that'")
    until(page, recommended(console, "nobody like that"))
    assert page.inner_text(".profile-head").split("\n")[:2] == ["nobody like that", "nothing known yet"]
    field = page.get_by_role("combobox")
    field.fill("P1")
    page.wait_for_function("() => document.querySelectorAll('.options li').length > 3")
    field.press("ArrowDown")
    field.press("Enter")
    page.wait_for_function("() => document.querySelector('.who-name').textContent === 'p1'")
    until(page, recommended(console, "p1"))
    for name, begins in (("Invent", "try-"), ("Anonymous", "session try-")):
        page.get_by_role("button", name=name).click()
        page.wait_for_function("(text) => document.querySelector('.who-name').textContent.startsWith(text)", arg=begins)
        page.wait_for_selector("li.film")
    page.click("li.film button.poster")
    page.wait_for_selector(".events .event")
    page.get_by_role("button", name="Random").click()
    page.wait_for_function("() => /^p\\d+$/.test(document.querySelector('.who-name').textContent)")


def test_what_moves_is_seen_to_move_unless_somebody_wants_it_still(console: httpx.Client, pages: Callable[..., Any]) -> None:
    for how, moves in (("no-preference", True), ("reduce", False)):
        page = opened(pages(reduced_motion=how), console, user=f"mover {how}")
        assert (page.evaluate(RUNNING) > 3) == moves


def test_whoever_wants_it_is_shown_what_is_drawn_by_chance(console: httpx.Client, page: Any) -> None:
    opened(page, console, user="curious")
    with page.expect_response(lambda answer: "/v1/recommend/curious" in answer.url) as asked:
        page.get_by_label("explore a little").check()
    assert "explore=0.2" in asked.value.url
    items = asked.value.json()["items"]
    until(page, ids(items))
    drawn = page.locator("li.film:has(.source-explore)").evaluate_all("(all) => all.map((one) => one.dataset.item)")
    assert drawn == [item["item_id"] for item in items if item["source"] == "explore"]


def test_any_name_is_text_and_nothing_else(console: httpx.Client, pages: Callable[..., Any]) -> None:
    name = "Ö *[\\ 🎭/../<img src=x onerror=alert(1)>"
    page = opened(pages(size=PHONE), console, user=name)
    until(page, recommended(console, name))
    page.locator("li.film").first.locator("button.poster").click()
    page.wait_for_selector(".events .event")
    until(page, recommended(console, name))
    page.get_by_role("link", name="Why these?").click()
    page.wait_for_selector(".person-head")
    assert page.inner_text(".person-head h2") == name
    assert page.locator("main img").count() == 0


def test_a_persons_page_shows_each_stage_and_says_why_not(console: httpx.Client, page: Any) -> None:
    page.goto(url(console, "people", user="p0"))
    page.wait_for_selector(".experts")
    told = console.get("/v1/console/list?user=p0&k=10&stages=true&explain=true").json()
    shown = page.locator(".shown > li").evaluate_all("(all) => all.map((one) => one.dataset.item)")
    assert shown == ids(told["items"]) == recommended(console, "p0", 10)
    columns = [
        page.locator(".expert").nth(place).locator("li").evaluate_all("(all) => all.map((one) => one.dataset.item)") for place in range(4)
    ]
    assert columns == [ids(told["stages"][name]) for name in ("tower", "neighbours", "popular")] + [shown]
    seen = console.get("/v1/console/person?user=p0").json()["events"][0]
    field = page.get_by_role("combobox", name="Search a film to ask about")
    field.fill(seen["title"][:9].upper())
    page.wait_for_function(
        "(title) => [...document.querySelectorAll('.option-title')].some((one) => one.textContent === title)", arg=seen["title"]
    )
    field.press("Enter")
    page.wait_for_selector(".gates .fell")
    assert "exclude_seen is true" in page.inner_text(".why-answer")
    assert page.inner_text(".gates .fell").startswith("✕ not seen")


def test_an_items_page_shows_its_neighbours_and_how_its_vector_moved(console: httpx.Client, page: Any) -> None:
    page.goto(url(console, "people"))
    field = page.get_by_role("combobox", name="Search films")
    field.fill("clockwork")
    page.wait_for_selector(".options li:has-text('The Clockwork Fox')")
    field.press("Enter")
    page.wait_for_selector(".film-head")
    near = page.locator(".near-film").evaluate_all("(all) => all.map((one) => new URLSearchParams(one.hash.split('?')[1]).get('item'))")
    assert near == ids(console.get("/v1/items/an0/similar?k=12").json()["items"])
    assert page.locator("text=How its vector moved").count() == 1
    assert page.locator(".badge.good").first.inner_text() == "warm"
    page.goto(url(console, "people", item="no such film"))
    page.wait_for_selector("text=Neither the catalogue nor the release knows this id.")
    page.goto(url(console, "people", user="nobody at all"))
    page.wait_for_selector("text=Nobody has this name in Redis")


def test_a_poster_is_drawn_the_same_each_time_and_another_for_another_film(console: httpx.Client, page: Any) -> None:
    opened(page, console, user="p0")
    drawn = page.evaluate(DRAWN)
    assert len(drawn) == 23
    assert all(first == again != other for first, again, other in drawn)
    assert not any("NaN" in one or "undefined" in one for three in drawn for one in three)
