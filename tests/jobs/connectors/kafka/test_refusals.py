"""What Kafka's clients report has one meaning, whichever client it is, and a remedy."""

import pytest
from confluent_kafka import KafkaError

from jobs.connectors.causes import KAFKA, Cause
from jobs.connectors.exactly_once.errors import refused
from jobs.connectors.kafka.refusals import BY_ERROR, REFUSALS
from jobs.pipeline.errors import known_error
from jobs.pipeline.supervision import PASSING


@pytest.mark.parametrize("name", sorted(BY_ERROR))
def test_each_error_is_one_of_librdkafkas_and_has_a_code_and_a_remedy(name: str) -> None:
    error = KafkaError(getattr(KafkaError, name))
    assert error.name() == name
    stop = refused("topic t", error, (), {})
    assert (stop.code, stop.message) == (BY_ERROR[name].code, f"topic t: {error.str()}")
    assert "then start the same again" in stop.remedy


def test_java_names_the_same() -> None:
    for refusal in REFUSALS:
        for name in refusal.java:
            stop = known_error([Cause(f"{KAFKA}{name}", "said")])
            assert stop is not None and stop.code == refusal.code


def test_only_what_may_pass_by_itself_is_started_again() -> None:
    assert {refusal.code for refusal in REFUSALS} & PASSING == {"BROKER_UNREACHABLE"}
