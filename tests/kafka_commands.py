"""Following a remedy: the Kafka command that a message names is run as it stands there."""

import re
import shlex

from local import kafka_commands

COMMAND = re.compile(r"`kafka-(\w+)\.sh ([^`]*)`")


def follow(text: str, **values: str) -> list[str]:
    """Run every Kafka command in `text`, words replaced by `values`; the commands."""
    found = COMMAND.findall(text)
    for tool, options in found:
        words = [values.get(word, word) for word in shlex.split(options)]
        assert kafka_commands.kafka_tools([tool, *words]) == 0, (tool, options)
    return [f"{tool} {options}" for tool, options in found]
