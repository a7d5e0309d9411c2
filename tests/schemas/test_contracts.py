"""The contracts hold what they promise: documented, decodable, registered as they stand."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from io import BytesIO
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conf import ROOT
from conf.errors import TidemarkError
from conf.topics import load_topics
from schemas.codec import Decoder, Encoder
from schemas.contracts import contract, contract_names, with_fields
from schemas.registry import FileRegistry
from schemas.schema_text import normalized
from tests.jobs.connectors.avro.avro_examples import fields, named, types, values

TOPICS = [topic for topic in load_topics().values() if topic.streams]  # all but those of JSON
REGISTRY = FileRegistry(ROOT / "schemas" / "registry")
NOON = datetime(2013, 7, 1, 12, tzinfo=UTC)
FLIGHT = {"flight_id": "UA1545-EWR-20130701T1200Z", "carrier": "UA", "origin": "EWR", "destination": "IAH"}
NUMBERED = FLIGHT | {"flight": 1545, "tail_number": None}
EXAMPLES: dict[str, dict[str, Any]] = {
    "departure": NUMBERED
    | {"scheduled_departure_at": NOON, "departed_at": NOON, "delay_minutes": -3}
    | {"scheduled_arrival_at": NOON, "distance_miles": 1400},
    "arrival": NUMBERED
    | {"scheduled_arrival_at": None, "arrived_at": NOON, "delay_minutes": None, "air_time_minutes": 227},
    "friendship": {"event_id": "e-1", "pair": "ann+bob", "person": "ann", "friend": "bob"}
    | {"are_friends": True, "region": "us", "happened_at": NOON},
    "person": {"person": 1000, "name": "Kate Smith", "email": "k@smith.com", "credit_card": "1234 5678 9012 3456"}
    | {"city": "Boise", "state": "ID", "registered_at": NOON, "extra": "xyz"},
    "auction": {"auction": 1000, "item": "vase", "description": "blue", "initial_bid": 100, "reserve": 2**40}
    | {"opened_at": NOON, "expires_at": NOON, "seller": 1000, "category": 10, "extra": ""},
    "bid": {"auction": 1000, "bidder": 1001, "price": 100, "channel": "Google", "url": "https://a.example/b/c/d"}
    | {"bid_at": NOON, "extra": "xyz"},
    "winning_bid": {"auction": 1000, "item": "vase", "category": 10, "seller": 1000, "bidder": 1001, "price": 100}
    | {"opened_at": NOON, "expires_at": NOON, "bid_at": NOON},
    "bid_count": {"auction": 1000, "window_start": NOON, "bids": 3},
    "transfer": {"transfer": 0, "from_account": 1, "to_account": 2, "amount": 100, "transferred_at": NOON},
    "cancellation": NUMBERED | {"scheduled_departure_at": NOON, "cancelled_at": NOON},
    "weather_observation": {"station": "JFK", "observed_at": NOON, "temperature_f": Decimal("-9.94")}
    | {"dew_point_f": Decimal("100.04"), "humidity_percent": Decimal("59.37"), "wind_direction_degrees": 270}
    | {"wind_speed_mph": 10.357019999999999, "wind_gust_mph": None, "precipitation_inches": Decimal("0.01")}
    | {"pressure_millibars": Decimal("1012.3"), "visibility_miles": Decimal("0.06")},
    "plane": {
        "tail_number": "N10156",
        "year": 2004,
        "type": None,
        "manufacturer": "EMBRAER",
        "model": "EMB-145XR",
    }
    | {"engines": 2, "seats": 55, "speed_mph": None, "engine": "Turbo-fan"},
    "delay_alert": FLIGHT | {"departed_at": NOON, "delay_minutes": 180, "severity": "very_late"},
}


def named_types(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, list):
        for branch in schema:
            yield from named_types(branch)
    elif isinstance(schema, dict):
        if "name" in schema:
            yield schema
        for child in (schema.get("type"), *schema.get("fields", ())):
            yield from named_types(child)


@pytest.mark.parametrize("name", contract_names())
def test_every_field_and_type_is_documented(name: str) -> None:
    documented = {part["name"]: part.get("doc", "") for part in named_types(json.loads(contract(name)))}
    assert [part for part, doc in documented.items() if len(doc) < 10] == []


@pytest.mark.parametrize("name", contract_names())
def test_timestamps_and_measures_name_their_unit(name: str) -> None:
    units = {
        "_at": "milliseconds since",
        "_minutes": "in minutes",
        "_miles": "miles",
        "_mph": "miles per hour",
    }
    units |= {"_f": "Fahrenheit", "_percent": "percent", "_inches": "inches", "_millibars": "millibars"}
    fields = json.loads(contract(name))["fields"]
    measures = [(f, unit) for f in fields for ending, unit in units.items() if f["name"].endswith(ending)]
    assert [field["name"] for field, unit in measures if unit not in field["doc"]] == []


@pytest.mark.parametrize("name", contract_names())
def test_optional_fields_default_to_null(name: str) -> None:
    fields = json.loads(contract(name))["fields"]
    optional = [field for field in fields if isinstance(field["type"], list)]
    assert [field["name"] for field in optional if field["type"][0] != "null" or field["default"] is not None] == []


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_an_event_survives_the_way_through_the_codec(topic: Any) -> None:
    registered = REGISTRY.latest(topic.subject)
    event = EXAMPLES[topic.schema]
    assert Decoder(REGISTRY)(Encoder(registered.id, registered.text)(event)) == event


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_the_committed_registry_holds_the_contracts_as_they_stand(topic: Any) -> None:
    assert normalized(REGISTRY.latest(topic.subject).text) == normalized(contract(topic.schema))


def test_key_and_event_time_of_every_topic_are_fields_of_its_contract() -> None:
    for topic in TOPICS:
        fields = {field["name"] for field in json.loads(contract(topic.schema))["fields"]}
        assert {topic.key, topic.event_time or topic.key} <= fields, topic.name


def test_an_unknown_contract_is_named_with_the_nearest() -> None:
    with pytest.raises(TidemarkError, match=r"UNKNOWN_CONTRACT.*did you mean `departure`"):
        contract("depature")


@st.composite
def records(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """A record's schema, a value of it, and some of its fields; half of the fields have the type of another."""
    kinds = draw(st.lists(types(), min_size=1, max_size=5))
    schema = named({"type": "record", "fields": fields(kinds)}, "Event")
    for number, field in enumerate(schema["fields"]):
        if isinstance(field["type"], dict) and "name" in field["type"]:
            schema["fields"].append({"name": f"again{number}", "type": ["null", field["type"]["name"]]})
    value = draw(values({**schema, "fields": schema["fields"][: len(kinds)]}))
    again = {name["name"]: value.get(f"f{name['name'][5:]}") for name in schema["fields"][len(kinds) :]}
    names = draw(st.lists(st.sampled_from([field["name"] for field in schema["fields"]]), unique=True))
    return schema, value | again, names


# The first draw loads all that types are drawn from.
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(records())
def test_an_event_with_few_of_its_fields_has_the_values_of_all(drawn: tuple[Any, Any, list[str]]) -> None:
    schema, value, names = drawn
    narrow = json.loads(with_fields(json.dumps(schema), names))
    kept = [field["name"] for field in narrow["fields"]]
    assert set(names) <= set(kept)
    buffer = BytesIO()
    schemaless_writer(buffer, parse_schema(schema), value)
    whole: Any = schemaless_reader(BytesIO(buffer.getvalue()), parse_schema(schema), None)
    found: Any = schemaless_reader(BytesIO(buffer.getvalue()), parse_schema(schema), parse_schema(narrow))
    assert repr(found) == repr({name: whole[name] for name in kept})


def test_a_field_that_declares_the_type_of_another_is_kept_with_it() -> None:
    point = {"type": "record", "name": "a.Point", "fields": [{"name": "x", "type": "int"}]}
    listed = {"name": "points", "type": {"type": "array", "items": "Point"}}
    schema = {"type": "record", "name": "a.E", "fields": [{"name": "n", "type": "int"}, {"name": "p", "type": point}]}
    text = json.dumps(schema | {"fields": [*schema["fields"], listed]})
    for names, kept in ((["points"], ["p", "points"]), (["n"], ["n"]), (["p"], ["p"]), ([], [])):
        assert [field["name"] for field in json.loads(with_fields(text, names))["fields"]] == kept
    assert len(json.loads(with_fields(text, ["n"], beside=["p", "nowhere"]))["fields"]) == 2
