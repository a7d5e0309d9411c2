"""Makes the locks of the peers' environments anew, from the roots named here.

    .tidemark/venv/bin/python -m bench.peers.lock [PEER ...]

Packages with the hashes of every file of each version, jars with their checksums; no address stands in either.
"""

import sys
import tempfile
import venv
from pathlib import Path

from bench.peers.environments import LOCKS
from bench.workbench import option_parser
from conf import command_line
from conf.errors import exit_on_error
from local.lock import PIP_TOOLS, compile_packages, resolve, run

PACKAGES = {
    "plain-loop": ["confluent-kafka==2.16.0", "fastavro==1.13.1"],
    "quix": ["quixstreams==3.28.1", "fastavro==1.13.1"],
}
FLINK = "2.3.0"
KAFKA = "4.3.1"  # the broker's
JARS = {
    "flink": [
        *(f"org.apache.flink:{name}:{FLINK}" for name in ("flink-clients", "flink-table-api-java-bridge")),
        *(f"org.apache.flink:{name}:{FLINK}" for name in ("flink-table-planner-loader", "flink-table-runtime")),
        f"org.apache.flink:flink-sql-avro-confluent-registry:{FLINK}",
        f"org.apache.flink:flink-statebackend-rocksdb:{FLINK}",
        "org.apache.flink:flink-connector-base:" + FLINK,
        "org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2",  # the newest; it says that it is for 2.2
    ],
    "kafka-streams": [f"org.apache.kafka:kafka-streams:{KAFKA}", "org.apache.avro:avro:1.12.1"],
}
HEADER = "# Written by `python -m bench.peers.lock`: set, group:artifact:version, file, sha256.\n"


def main() -> int:
    parser = option_parser(__doc__)
    parser.add_argument("peers", nargs="*", metavar="PEER", help=", ".join([*PACKAGES, *JARS]))
    peers = command_line.parse(parser, sys.argv[1:]).peers or [*PACKAGES, *JARS]
    with tempfile.TemporaryDirectory() as folder:
        tool = Path(folder) / "bin" / "python"
        if packages := [peer for peer in peers if peer in PACKAGES]:
            venv.create(folder, with_pip=True)
            run([str(tool), "-m", "pip", "install", "--quiet", PIP_TOOLS])
        for peer in packages:
            compile_packages(tool, ["-"], str(LOCKS / f"{peer}.txt"), stdin="\n".join(PACKAGES[peer]))
    for peer in peers:
        if peer in JARS:
            jars = sorted(resolve(peer, {"roots": JARS[peer]}))
            rows = [" ".join((jar.jar_set, jar.coordinate, jar.file, jar.sha256)) for jar in jars]
            (LOCKS / f"{peer}.jars").write_text(HEADER + "".join(f"{row}\n" for row in rows))
    print(f"locked: {', '.join(peers)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    exit_on_error(main)
