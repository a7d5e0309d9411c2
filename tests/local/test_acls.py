"""What users must be allowed to do: derived from what is declared, held against ACLs, shown as Kafka's own commands."""

from collections.abc import Iterable

import pytest
from pyspark.sql import SparkSession

from conf import ROOT
from conf.errors import TidemarkError
from conf.settings import Settings, load
from jobs.connectors.exactly_once.ledger import sink_rights
from jobs.connectors.kafka.access import Kind, Right, publishing, reading
from jobs.connectors.kafka.acls import Acls, Comparison, Entry, compare, single
from jobs.pipeline.outputs import reading_rights
from local import acls
from local.acls import commands, needed, table, together
from local.broker import Cluster
from local.command_rights import COMMANDS, command_rights, find_command

BOB = "User:bob"
READ = Right("topic", "in", ("Read",))
BOTH = Right("topic", "in", ("Read", "Write"))
IDS = Right("transactional-id", "app.job.", ("Write",), is_prefix=True)


def entry(
    name: str = "in",
    operation: str = "Read",
    kind: str = "topic",
    is_prefix: bool = False,
    principal: str = BOB,
    host: str = "*",
    allows: bool = True,
) -> Entry:
    return Entry(kind, name, is_prefix, principal, host, operation, allows)


def held(right: Right, *entries: Entry) -> bool:
    return not compare([right], entries, BOB).lacking


@pytest.mark.parametrize(
    "given",
    [
        entry(),
        entry(operation="All"),
        entry("*"),
        entry("i", is_prefix=True),
        entry("in", is_prefix=True),
        entry(principal="User:*"),
    ],
)
def test_a_right_is_there_by_name_by_prefix_by_all_and_by_everybody(given: Entry) -> None:
    assert held(READ, given)


@pytest.mark.parametrize(
    "given",
    [
        entry("other"),
        entry(operation="Write"),
        entry(operation="Describe"),
        entry(kind="group"),
        entry(principal="User:alice"),
        entry(host="10.0.0.1"),
        entry("into", is_prefix=True),
        entry(allows=False),
    ],
)
def test_a_right_to_something_else_is_not_that_right(given: Entry) -> None:
    assert not held(READ, given)


def test_of_all_that_begins_alike_a_right_to_one_is_not_enough() -> None:
    def ids(name: str, is_prefix: bool) -> Entry:
        return entry(name, "Write", "transactional-id", is_prefix)

    assert not held(IDS, ids("app.job.", False), ids("app.job.0", True))
    assert held(IDS, ids("app.", True))
    assert held(IDS, ids("*", False))


def test_what_reads_writes_or_alters_may_describe() -> None:
    describe = Right("topic", "in", ("Describe", "DescribeConfigs"))
    assert held(describe, entry(operation="Alter"), entry(operation="AlterConfigs"))
    assert not held(describe, entry(operation="Create"), entry(operation="AlterConfigs"))
    assert single([*reading(["in"]), Right("topic", "in", ("Describe",))]) == [READ]


@pytest.mark.parametrize(
    "given",
    [
        entry(allows=False),
        entry(operation="Describe", allows=False),
        entry("*", "All", allows=False, principal="User:*"),
        entry("i", is_prefix=True, allows=False, host="10.0.0.1"),
    ],
)
def test_what_denies_is_told_whatever_allows(given: Entry) -> None:
    assert compare([READ], [given, entry()], BOB).denied == ((READ, given),)
    assert not compare([READ], [entry(operation="Write", allows=False), entry()], BOB).denied


def test_what_is_allowed_beyond_the_plan_is_told() -> None:
    within = [entry(), entry(operation="Describe"), entry("app.job.3", "Write", "transactional-id")]
    beyond = [
        entry("*"),
        entry(operation="All"),
        entry(operation="Delete"),
        entry("in", is_prefix=True),
        entry("app.", "Write", "transactional-id", is_prefix=True),
        entry("kafka-cluster", "Alter", "cluster"),
    ]
    entries = [*within, *beyond, entry("other", principal="User:*"), entry("other", allows=False)]
    assert compare([READ, IDS], entries, BOB).beyond == tuple(beyond)


def test_an_operation_that_is_needed_is_not_optional_as_well() -> None:
    optional = Right("topic", "in", ("Read",), without="something")
    assert single([optional, READ]) == single([READ, optional]) == [READ]
    assert together([READ, Right("topic", "in", ("Write",))]) == [BOTH]


def test_commands_are_those_of_kafka_one_a_resource() -> None:
    rights = [*single([BOTH, IDS]), Right("cluster", "kafka-cluster", ("Describe",)), Right("topic", "*", ("Read",))]
    assert list(commands(rights, "User:CN=b o", "h:1")) == [
        "kafka-acls.sh --bootstrap-server h:1 --add --allow-principal 'User:CN=b o' " + options
        for options in (
            "--operation Read --operation Write --topic in",
            "--operation Write --transactional-id app.job. --resource-pattern-type prefixed",
            "--operation Describe --cluster",
            "--operation Read --topic '*'",
        )
    ]


def test_lines_have_signs_and_who_needs_each() -> None:
    compared = Comparison((READ,), (IDS,), ((IDS, entry("app.", allows=False)),), (entry("other"),))
    assert list(acls.lines(compared, {"ingest": [READ, IDS], "publish": [IDS]})) == [
        "= Read on topic in  (ingest)",
        "! Write on transactional ids that begin with app.job.  (ingest, publish)",
        "? Read on topic other  beyond the plan; left as it is",
    ]


@pytest.fixture
def settings() -> Settings:
    return load("local", ["ledger.application=APP", "kafka.bootstrap_servers=h:1"])


def test_a_command_is_found_with_its_words(settings: Settings) -> None:
    lines = list(table(needed(settings, ["publish file in --create-topic --exactly-once daily"])))
    assert [line.partition("daily  ")[2] for line in lines[:4]] == [
        "Write, Create on topic in",
        "DescribeConfigs on topic in  optional (1)",
        "Read, Write, Create on topic __APP.publish.in.daily.ledger",
        "Write on transactional id APP.publish.in.daily",
    ]
    least = needed(settings, ["publish file in"], least=True)["publish file in"]
    assert least == [Right("topic", "in", ("Write",))]


@pytest.mark.parametrize(
    ("who", "said"),
    [
        ("publish flight", r"UNKNOWN_COMMAND: `publish flight` is no job, .*; did you mean `publish flights`\?"),
        ("ingst", r"UNKNOWN_COMMAND: .*; did you mean `ingest`\?"),
        ("publish flights --exactly", "BAD_ARGUMENTS: .*--exactly"),
        ("publish flights a b", "BAD_ARGUMENTS: `publish flights a b`: unrecognized arguments: b"),
        ("replay ingst", "UNKNOWN_JOB"),
        ('publish file "', 'BAD_ARGUMENTS: `publish file "` is no command line: No closing quotation'),
    ],
)
def test_what_is_neither_job_nor_command_gets_the_nearest(who: str, said: str, settings: Settings) -> None:
    with pytest.raises(TidemarkError, match=said):
        needed(settings, [who])


def test_nobody_is_given_the_rights_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["apply"], ["apply", "ingest"], ["apply", "--principal", BOB], ["plan", "--principal", "bob"]):
        with pytest.raises(SystemExit, match="2"):
            acls.main(wrong)
    with pytest.raises(SystemExit, match="2"):
        acls.main(["plan", "ingest", "--principal", "User:*"])
    assert "User:* is everybody" in capsys.readouterr().err


def test_a_job_needs_what_it_declares(settings: Settings, spark: SparkSession) -> None:
    needs = needed(settings, ["flights.delay_alerts", "regions.friends"], least=True)
    assert list(table(needs)) == [
        "flights.delay_alerts  Read on topic departures",
        "flights.delay_alerts  Write on topic delay_alerts",
        "flights.delay_alerts  Read, Write, Create, Alter on topic __APP.flights.delay_alerts.ledger",
        "flights.delay_alerts  Write on transactional ids that begin with APP.flights.delay_alerts.",
        "regions.friends       Read on topics eu.friendships, friendships",
    ]


def test_a_job_that_publishes_at_least_once_needs_no_ledger(settings: Settings, spark: SparkSession) -> None:
    at_least = load("local", ["kafka.bootstrap_servers=h:1", "sink.delivery=at-least-once"])
    assert list(table(needed(at_least, ["flights.delay_alerts"], least=True))) == [
        "flights.delay_alerts  Read on topic departures",
        "flights.delay_alerts  Write on topic delay_alerts",
    ]


def test_a_cluster_without_an_authorizer_says_so(broker: Cluster) -> None:
    kafka = load("local", [f"kafka.bootstrap_servers={broker.bootstrap_servers}"]).kafka
    cluster = Acls(kafka)
    assert cluster.of(BOB) == []
    with pytest.raises(TidemarkError, match="NO_AUTHORIZER"):
        cluster.add(BOB, [READ])


WORDS = {
    "publish flights": "--exactly-once NAME",
    "publish file": "TOPIC --create-topic --exactly-once NAME",
    "quarantine list": "TOPIC",
    "quarantine inspect": "TOPIC",
    "quarantine redrive": "TOPIC",
    "quarantine queue fill": "TOPIC",
    "quarantine queue work": "TOPIC --redrive",
    "replay": "JOB",
    "topics": "TOPIC",
    "coverage": "TOPIC",
    "transactions": "--abort",
    "page": "TOPIC",
}
KINDS: tuple[Kind, ...] = ("topic", "group", "transactional-id", "cluster")


def row(who: str, rights: Iterable[Right]) -> str:
    """A row of the page's table: rights by kind, those that are optional in italics."""
    cells = []
    for kind in KINDS:
        of_kind = [right for right in together(single(rights)) if right.kind == kind]
        texts = [
            f"{', '.join(right.operations)} on `{right.name}{'…' * right.is_prefix}`".replace(" on `kafka-cluster`", "")
            for right in of_kind
        ]
        marked = (f"*{text}*" if right.without else text for text, right in zip(texts, of_kind, strict=True))
        cells.append("; ".join(marked))
    return "| " + " | ".join([who, *cells]) + " |"


def rows(settings: Settings) -> list[str]:
    jobs = {
        "a job reads TOPIC": reading_rights(settings, ["TOPIC"], "QUERY"),
        "a job publishes to TOPIC, exactly once or at most once": sink_rights("APP.QUERY", ["TOPIC"]),
        "a job publishes to TOPIC at least once (Spark's own sink)": publishing(["TOPIC"]),
    }
    lines = [row(who, rights) for who, rights in jobs.items()]
    for name in COMMANDS:
        text = f"{name} {WORDS.get(name, '')}".strip()
        who = find_command(text)
        assert who is not None
        lines.append(row(f"`{text}`", command_rights(settings, who)))
    return lines


def test_the_page_has_what_the_code_asks_for(settings: Settings) -> None:
    page = (ROOT / "docs" / "rights.md").read_text()
    shown = [line for line in page.splitlines() if line.startswith(("| a job ", "| `"))]
    assert shown == rows(settings), "\n" + "\n".join(rows(settings))
