"""Runs `local/tidemark transactions`, with Kafka's client for Java in a small JVM of its own."""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyspark
from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway  # type: ignore[import-untyped]

from conf import command_line
from conf.settings import Settings
from jobs.connectors.kafka.java_client import TransactionAdmin
from jobs.operations.transactions import OpenTransactions, lines
from local import jars
from local.processes import java

DESCRIPTION = "Which open transactions hold readers of committed records back, and whose they are."
EXIT_CODES = "exit code: 0 done, 1 failure, or --abort left some alone, 2 wrong usage"


def main(argv: Sequence[str]) -> int:
    """List open transactions, and end those that are dead; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="local/tidemark transactions",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        parents=[command_line.settings_options()],
    )
    parser.add_argument("--abort", action="store_true", help="end those whose ledger proves that their process is gone")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = command_line.parse(parser, argv)
    settings = command_line.settings_of(options)
    with administered(settings) as transactions:
        found = transactions.find()
        if options.json:
            print("\n".join(json.dumps(each.to_json()) for each in found))
        else:
            print("\n".join(lines(found, settings.kafka.bootstrap_servers, time.time() * 1000)))
        if not options.abort:
            return 0
        ended = transactions.abort(found)
    left = sorted({each.transaction.transactional_id or "-" for each in found} - set(ended))
    for id in ended:
        print(f"ended: {id}")
    for id in left:
        print(f"left alone: {id}: it is not proven dead")
    return 1 if left else 0


@contextmanager
def administered(settings: Settings) -> Iterator[OpenTransactions]:
    """Give the open transactions of the settings' cluster.

    Raises:
        TidemarkError: NO_BROKER, BROKER_UNREACHABLE, BROKER_REFUSES, NO_JARS, NO_JAVA.
    """
    settings.kafka.require_bootstrap_servers()
    with _gateway() as gateway:
        admin = TransactionAdmin(gateway, settings.kafka)
        try:
            yield OpenTransactions(settings.kafka, admin)
        finally:
            admin.close()


@contextmanager
def _gateway() -> Iterator[JavaGateway]:
    """Start a JVM with the embedded broker's jars, which have the newest client."""
    [py4j] = (Path(pyspark.__file__).parent / "jars").glob("py4j-*.jar")
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
        yield gateway
    finally:
        gateway.shutdown()
        process.stdin.close()  # it ends by that
        process.wait()
