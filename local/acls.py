"""Runs `local/tidemark acls`: what jobs and commands must be allowed to do, and the ACLs that allow it.

`plan` shows it, `apply` adds what a principal lacks. Nothing is removed, and nothing is added that no plan shows.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from conf import command_line
from conf.settings import Settings
from jobs import catalog
from jobs.connectors.kafka.access import Right, grant
from jobs.connectors.kafka.acls import Acls, Comparison, Entry, compare, single
from local.command_rights import COMMANDS, command_rights, find_command, unknown_command

NAME, SERVERS = "User:NAME", "HOST:PORT"
Needs = Mapping[str, Sequence[Right]]


def main(argv: Sequence[str]) -> int:
    """Run `acls ARGV`; returns the exit code, raises TidemarkError and, for wrong usage, SystemExit(2)."""
    parser = argparse.ArgumentParser(
        prog="local/tidemark acls",
        description="What jobs and commands must be allowed to do on the brokers, derived from what they declare. "
        "With --principal, held against the ACLs of the cluster: + would be added, = is there, ! is denied, "
        "? is there beyond the plan.",
        epilog="exit code: 0 done, 1 failure, or an ACL denies what is needed, 2 wrong usage",
        parents=[command_line.settings_options()],
    )
    parser.add_argument("action", choices=("plan", "apply"))
    who = "a job, or a command in quotes ('publish file TOPIC --exactly-once NAME'); without any: all of them"
    parser.add_argument("who", nargs="*", metavar="WHO", help=who)
    parser.add_argument("--principal", type=_principal, metavar="User:NAME", help="whose rights they are")
    parser.add_argument("--least", action="store_true", help="leave out rights that everything works without")
    options = command_line.parse(parser, argv)
    if options.action == "apply" and not (options.who and options.principal):
        parser.error("apply needs WHO and --principal: nobody is given the rights of all")
    settings = command_line.settings_of(options)
    needs = needed(settings, options.who or [*catalog.questions(), *COMMANDS], options.least)
    if options.principal is None:
        print("\n".join(table(needs)))
        print("\n".join(commands(all_of(needs), NAME, settings.kafka.bootstrap_servers or SERVERS)))
        return 0
    return _compare_with_cluster(settings, needs, options.principal, options.action == "apply")


def needed(settings: Settings, who: Sequence[str], least: bool = False) -> Needs:
    """Return the rights that each of `who` needs, in the order of their names there.

    Args:
        least: leave out those that everything works without.

    Raises:
        TidemarkError: UNKNOWN_COMMAND, BAD_ARGUMENTS, and what a job's `build` raises.
    """
    jobs = list(catalog.questions())
    lines = {}
    for text in who:
        if text not in jobs:
            line = find_command(text)
            if line is None:
                raise unknown_command(text, jobs)
            if line.command == "replay" and line.topic:
                catalog.require(line.topic)
            lines[text] = line
    replayed = {line.topic for line in lines.values() if line.command == "replay" and line.topic}
    of_jobs = job_rights(settings, [job for job in jobs if job in {*who, *replayed}])
    needs: dict[str, list[Right]] = {}
    for text in who:
        rights = command_rights(settings, lines[text]) if text in lines else list(of_jobs[text])
        if text in lines and lines[text].command == "replay":
            rights += of_jobs.get(lines[text].topic, [])
        needs[text] = [right for right in single(rights) if not (least and right.without)]
    return needs


def job_rights(settings: Settings, names: Sequence[str]) -> dict[str, list[Right]]:
    """Return the rights that each of those jobs needs: it is declared in a Spark session, and nothing is started."""
    if not names:
        return {}
    # Here, so that no JVM is started, and no PySpark loaded, for commands that need none.
    from jobs.pipeline.run import DeclaredRun
    from local.session import spark_session
    from local.submit import quiet_start

    kafka = settings.kafka.model_copy(update={"bootstrap_servers": settings.kafka.bootstrap_servers or SERVERS})
    with quiet_start():
        spark = spark_session(settings, "acls")
    found = {}
    for name in names:
        run = DeclaredRun(spark, settings.model_copy(update={"kafka": kafka}), name)
        catalog.load(name).build(run)
        found[name] = run.rights()
    return found


def all_of(needs: Needs) -> list[Right]:
    """Return the rights of all together, one operation each."""
    return single(right for rights in needs.values() for right in rights)


def table(needs: Needs) -> Iterator[str]:
    """Yield a line for the resources on which each needs the same rights, then what is lost without optional ones."""
    width = max(map(len, needs), default=0)
    reasons = list(dict.fromkeys(right.without for rights in needs.values() for right in rights if right.without))
    for who, rights in needs.items():
        alike: dict[Right, list[str]] = {}
        for right in together(rights):
            alike.setdefault(right._replace(name=""), []).append(right.name)
        for right, names in alike.items():
            worth = f"  optional ({reasons.index(right.without) + 1})" if right.without else ""
            one = right._replace(name=", ".join(names))
            what = str(one) if len(names) == 1 else str(one).replace(f" {right.kind}", f" {right.kind}s", 1)
            yield f"{who:{width}}  {what}{worth}"
    for number, reason in enumerate(reasons, 1):
        yield f"({number}) without it: {reason}"


def together(rights: Iterable[Right]) -> list[Right]:
    """Return the operations on each resource as one right; those that are optional apart."""
    found: dict[Right, tuple[str, ...]] = {}
    for right in rights:
        place = right._replace(operations=())
        found[place] = (*found.get(place, ()), *right.operations)
    return [place._replace(operations=operations) for place, operations in found.items()]


def commands(rights: Iterable[Right], principal: str, servers: str) -> Iterator[str]:
    """Yield the commands of Kafka's that grant `rights`, one for each resource."""
    for right in together(right._replace(without="") for right in rights):
        yield grant(right, principal, servers).strip("`")


def _compare_with_cluster(settings: Settings, needs: Needs, principal: str, apply: bool) -> int:
    cluster, servers = Acls(settings.kafka), settings.kafka.bootstrap_servers
    rights = all_of(needs)
    compared = compare(rights, cluster.of(principal), principal)
    print(f"{principal} on {servers}, for {', '.join(needs)}")
    print("\n".join(lines(compared, needs)))
    if not compared.held and not compared.beyond:
        print("note: the cluster shows no ACL of this principal; one without an authorizer has none, and asks for none")
    if not compared.lacking:
        print(f"nothing to add: {principal} is allowed all of it")
    elif apply:
        cluster.add(principal, compared.lacking)
        print(f"added: {len(compared.lacking)}")
    else:
        print("nothing was changed: `local/tidemark acls apply` adds what has a +; so do")
        print("\n".join(commands(compared.lacking, principal, servers)))
    for right, entry in compared.denied:
        what = f"error: DENIED: {principal} may not {right}: an ACL of {entry.principal} denies {entry}"
        print(f"{what}; let an administrator remove it: {_removal(entry, servers)}", file=sys.stderr)
    return int(bool(compared.denied))


def lines(compared: Comparison, needs: Needs) -> Iterator[str]:
    """Yield a line for each right of the plan, with its sign, and who needs it; then what there is beyond the plan."""
    denied = dict(compared.denied)
    for right in single([*compared.held, *compared.lacking]):
        sign = "!" if right in denied else "=" if right in compared.held else "+"
        wanting = [who for who, rights in needs.items() if right[:4] in {each[:4] for each in rights}]
        worth = f"  optional; without it: {right.without}" if right.without else ""
        yield f"{sign} {right}  ({', '.join(wanting) or 'brought by another'}){worth}"
    for entry in compared.beyond:
        yield f"? {entry}  beyond the plan; left as it is"


def _removal(entry: Entry, servers: str) -> str:
    place = Right(entry.kind, entry.name, (), entry.is_prefix).option()  # type: ignore[arg-type]
    host = "" if entry.host == "*" else f" --deny-host {entry.host}"
    options = f"--remove --force --deny-principal '{entry.principal}'{host} --operation {entry.operation} {place}"
    return f"`kafka-acls.sh --bootstrap-server {servers} {options}`"


def _principal(text: str) -> str:
    kind, _, name = text.partition(":")
    if not kind or not name or name != name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no principal like User:bob")
    if text == "User:*":
        raise argparse.ArgumentTypeError("User:* is everybody: name whose rights they are")
    return text
