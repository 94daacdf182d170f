"""An item's columns become buckets: each once, the same ones everywhere, for ever."""

from zlib import crc32

from recsys.content import features

BUCKETS = 1 << 20


def bucket(name: str, buckets: int = BUCKETS) -> int:
    return crc32(name.encode()) % buckets


def test_title_words_genres_and_numbers_each_have_a_bucket() -> None:
    item = {"item_id": "7", "title": "Heat (1995)", "genres": ["Crime", "Film Noir"], "year": 1995}
    expected = ["title=heat", "title=1995", "genres=crime", "genres=film noir", "year=1995"]
    assert features(item, BUCKETS) == sorted(bucket(name) for name in expected)


def test_the_id_and_empty_cells_say_nothing() -> None:
    assert features({"item_id": "7", "title": None, "genres": []}, BUCKETS) == []
    assert features({"item_id": "7", "title": ""}, BUCKETS) == []


def test_case_and_repetition_do_not_matter_but_the_column_does() -> None:
    assert features({"title": "Heat heat HEAT"}, BUCKETS) == features({"title": "heat"}, BUCKETS) == [bucket("title=heat")]
    assert features({"genres": ["Heat"]}, BUCKETS) != features({"title": "Heat"}, BUCKETS)


def test_the_order_of_columns_and_entries_does_not_matter() -> None:
    one = {"title": "Blue Velvet", "genres": ["Drama", "Mystery"], "year": 1986}
    other = {"year": 1986, "genres": ("Mystery", "Drama"), "title": "Velvet, Blue"}
    assert features(one, BUCKETS) == features(other, BUCKETS)


def test_letters_of_any_script_make_words() -> None:
    expected = sorted(bucket(f"title={word}") for word in ("amélie", "тест", "千と千尋"))
    assert features({"title": "Amélie Тест 千と千尋"}, BUCKETS) == expected


def test_buckets_stay_in_range_and_collisions_count_once() -> None:
    few = features({"title": " ".join(f"word{n}" for n in range(100))}, 16)
    assert few == sorted(set(few))
    assert set(few) <= set(range(16))


def test_a_feature_keeps_its_bucket_over_processes_and_versions() -> None:
    assert features({"title": "heat"}, 16384) == [6314]
