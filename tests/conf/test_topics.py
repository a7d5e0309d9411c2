"""Topics as declared, and what a wrong declaration is answered with."""

from pathlib import Path

import pytest

from conf.errors import TidemarkError
from conf.topics import FOREVER_MS, Topic, find_topic, load_topics

DECLARATION = """
[orders]
partitions = 3
key = "order_id"
schema = "order"
"""


def declared(folder: Path, text: str) -> dict[str, Topic]:
    path = folder / "topics.toml"
    path.write_text(text)
    return load_topics(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(TidemarkError) as refused:
        declared(folder, text)
    assert refused.value.code == "BAD_TOPICS"
    assert str(folder / "topics.toml") in refused.value.message
    return str(refused.value)


def test_what_is_left_out_has_the_documented_default(tmp_path: Path) -> None:
    expected = Topic("orders", 3, "order_id", "order", None, None, FOREVER_MS, "delete")
    assert declared(tmp_path, DECLARATION) == {"orders": expected}
    assert expected.subject == "orders-value"


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("forever", -1), ("1 minute", 60_000), ("2 hours", 7_200_000), ("1 day", 86_400_000), ("3 weeks", 1_814_400_000)],
)
def test_retention_is_read_in_words(text: str, milliseconds: int, tmp_path: Path) -> None:
    assert declared(tmp_path, f'{DECLARATION}retention = "{text}"')["orders"].retention_ms == milliseconds


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ("partition = 1", "topic `orders` has an unknown key `partition`; did you mean `partitions`?"),
        ('retention = "a week"', "topic `orders` has retention = 'a week'; write \"forever\""),
        ('retention = "0 days"', "topic `orders` has retention = '0 days'"),
        ("retention = 7", "topic `orders` has retention = 7"),
        (
            'cleanup_policy = "compacted"',
            "topic `orders` has cleanup_policy = 'compacted'; write `delete` or `compact`",
        ),
        ("replication_factor = 0", "topic `orders` has replication_factor = 0"),
        ("replication_factor = 40000", "topic `orders` has replication_factor = 40000"),
        ('retention = "99999999999999 weeks"', "topic `orders` has retention = '99999999999999 weeks'"),
        ("x = " + "[" * 100_000, "topics.toml: its tables or lists lie too deep in one another"),
        ("x = " + "9" * 5000, "topics.toml: Exceeds the limit"),
        ("replication_factor = true", "topic `orders` has replication_factor = True"),
        ("event_time = 5", "topic `orders` has event_time = 5"),
        ('format = "jason"', "topic `orders` has format = 'jason'; write `avro` or `json`"),
        ('format = "json"', "topic `orders` has a schema, and format = 'json'; leave one of them out"),
        ('schemas = ["paid"]', "topic `orders` lacks `schema`, or has `schemas` beside it"),
    ],
)
def test_a_wrong_declaration_is_refused_by_file_topic_and_key(added: str, expected: str, tmp_path: Path) -> None:
    assert expected in refusal(tmp_path, DECLARATION + added)


def test_a_file_that_is_no_utf_8_is_named_and_a_byte_order_mark_is_none_of_its_text(tmp_path: Path) -> None:
    path = tmp_path / "topics.toml"
    path.write_bytes(DECLARATION.encode() + b"# \xff")
    with pytest.raises(TidemarkError, match=r"BAD_TOPICS: .*topics.toml: it is no text in UTF-8"):
        load_topics(path)
    path.write_bytes(b"\xef\xbb\xbf" + DECLARATION.encode())
    assert list(load_topics(path)) == ["orders"]


@pytest.mark.parametrize("key", ["partitions", "key", "schema"])
def test_what_a_topic_must_declare_is_named_where_it_is_missing(key: str, tmp_path: Path) -> None:
    lines = [line for line in DECLARATION.splitlines() if not line.startswith(key)]
    assert f"topic `orders` lacks `{key}`" in refusal(tmp_path, "\n".join(lines))


@pytest.mark.parametrize("name", ["..", "../orders", "a/b", "", "é", "o" * 250])
def test_a_topic_is_named_as_kafka_names_topics(name: str, tmp_path: Path) -> None:
    text = DECLARATION.replace("orders", f"'{name}'")
    assert f"topic `{name}` has a name that Kafka does not take; write 1 to 249 letters" in refusal(tmp_path, text)


def test_a_key_outside_any_topic_is_refused(tmp_path: Path) -> None:
    assert "topic `partitions` is not a table" in refusal(tmp_path, "partitions = 3")


def test_a_file_that_is_no_toml_or_not_there_is_named(tmp_path: Path) -> None:
    refusal(tmp_path, "[orders")
    with pytest.raises(TidemarkError, match=r"BAD_TOPICS.*missing\.toml"):
        load_topics(tmp_path / "missing.toml")


def test_a_topic_that_is_not_declared_is_answered_with_the_nearest() -> None:
    topics = load_topics()
    assert find_topic("departures", topics).key == "flight_id"
    with pytest.raises(TidemarkError, match=r"UNKNOWN_TOPIC: topic `departure` .*did you mean `departures`"):
        find_topic("departure", topics)


def test_a_topic_of_json_has_no_contract_and_says_so(tmp_path: Path) -> None:
    topic = declared(tmp_path, '[lines]\npartitions = 1\nkey = "host"\nformat = "json"\n')["lines"]
    assert topic.streams == {}
    with pytest.raises(TidemarkError, match=r"NO_CONTRACT: topic lines holds JSON"):
        topic.require_contract()


SEVERAL = '[orders]\npartitions = 3\nkey = "order_id"\n'


def test_a_topic_with_events_of_several_types_has_a_stream_for_each(tmp_path: Path) -> None:
    topic = declared(tmp_path, SEVERAL + 'schemas = ["created", "paid"]')["orders"]
    assert topic.streams == {"orders/created": "created", "orders/paid": "paid"}


@pytest.mark.parametrize("listed", ["[]", '["paid", "paid"]', '"paid"', "[5]"])
def test_several_types_are_a_list_of_different_names(listed: str, tmp_path: Path) -> None:
    assert "topic `orders` has schemas = " in refusal(tmp_path, f"{SEVERAL}schemas = {listed}")


def test_a_compacted_topic_has_events_of_one_type(tmp_path: Path) -> None:
    text = SEVERAL + 'schemas = ["created", "paid"]\ncleanup_policy = "compact"'
    assert "is compacted and has several schemas" in refusal(tmp_path, text)


@pytest.mark.parametrize("schema", ["[]", '""', "5", "{}"])
def test_a_schema_is_named_by_a_text(schema: str, tmp_path: Path) -> None:
    path = tmp_path / "topics.toml"
    path.write_text(f'[t]\npartitions = 1\nkey = "k"\nschema = {schema}\n')
    with pytest.raises(TidemarkError, match=r"BAD_TOPICS: .*topic `t` has schema = .*; write a name in quotes"):
        load_topics(path)
