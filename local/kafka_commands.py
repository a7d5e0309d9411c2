"""Runs Kafka's own programs of the embedded broker's jars: its tools (`kafka`), and its client (`transactions`).

The client for Java can ask brokers about open transactions, as confluent-kafka cannot; it has a small JVM of its own.
"""

import argparse
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import takewhile

from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway  # type: ignore[import-untyped]

from conf import command_line
from conf.settings import Settings, without_secrets
from jobs.connectors.kafka.java_client import TransactionAdmin
from jobs.operations.transactions import OpenTransactions, lines
from local import jars
from local.processes import java

TOOLS = {
    "acls": "org.apache.kafka.tools.AclCommand",
    "configs": "kafka.admin.ConfigCommand",
    "consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "topics": "org.apache.kafka.tools.TopicCommand",
    "transactions": "org.apache.kafka.tools.TransactionsCommand",
}


def kafka_tools(argv: Sequence[str]) -> int:
    """Run `kafka-<tool>.sh` with the options that follow; its exit code.

    Raises:
        TidemarkError: NO_JARS, NO_JAVA.
    """
    parser = argparse.ArgumentParser(prog="local/tidemark kafka", description=kafka_tools.__doc__, add_help=False)
    parser.add_argument("tool", choices=sorted(TOOLS), help="acls for kafka-acls.sh, and so on")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="what the tool takes")
    # What the tool takes is for it to judge.
    command_line.check(list(takewhile(lambda word: word not in TOOLS, argv)))
    arguments = parser.parse_args(argv)
    command = [java(), "-XX:TieredStopAtLevel=1", "-cp", jars.class_path("broker"), TOOLS[arguments.tool]]
    return subprocess.run([*command, *arguments.options], env=without_secrets(os.environ), check=False).returncode


def transactions(argv: Sequence[str]) -> int:
    """List open transactions, and end those that are dead; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="local/tidemark transactions",
        description="Which open transactions hold readers of committed records back, and whose they are.",
        epilog="exit code: 0 done, 1 failure, or --abort left some alone, 2 wrong usage",
        parents=[command_line.settings_options()],
    )
    parser.add_argument("--abort", action="store_true", help="end those whose ledger proves that their process is gone")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = command_line.parse(parser, argv)
    settings = command_line.settings_of(options)
    with _open_transactions(settings) as administration:
        held = administration.find()
        if options.json:
            print("\n".join(json.dumps(each.to_json()) for each in held))
        else:
            print("\n".join(lines(held, settings.kafka.bootstrap_servers, time.time() * 1000)))
        if not options.abort:
            return 0
        ended = administration.abort(held)
    left = sorted({each.transaction.transactional_id or "-" for each in held} - set(ended))
    for id in ended:
        print(f"ended: {id}")
    for id in left:
        print(f"left alone: {id}: it is not proven dead")
    return 1 if left else 0


@contextmanager
def _open_transactions(settings: Settings) -> Iterator[OpenTransactions]:
    """Give the open transactions of the settings' cluster, asked by the newest client, in a JVM of its own.

    Raises:
        TidemarkError: NO_BROKER, BROKER_UNREACHABLE, BROKER_REFUSES, NO_JARS, NO_JAVA.
    """
    settings.kafka.require_bootstrap_servers()
    [py4j] = jars.spark_jars().glob("py4j-*.jar")
    port, token, process = launch_gateway(
        jarpath=str(py4j),
        classpath=jars.class_path("broker"),
        javaopts=["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m"],
        java_path=java(),
        die_on_exit=True,
        enable_auth=True,
        return_proc=True,
    )
    gateway = JavaGateway(gateway_parameters=GatewayParameters(port=port, auth_token=token, auto_convert=True))
    try:
        with closing(TransactionAdmin(gateway, settings.kafka)) as admin:
            yield OpenTransactions(settings.kafka, admin)
    finally:
        gateway.shutdown()
        process.stdin.close()  # it ends by that
        process.wait()
