"""Downloads jars with Apache Ivy, as pyspark ships it.

Which repository is asked, Ivy decides: its own default, or the user's `ivysettings.xml`.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from xml.sax.saxutils import quoteattr

from conf import home, state_dir
from conf.errors import TidemarkError
from local.processes import java, output_of

# A lock names exact jars, and their checksums are ours: no pom, version list or checksum file is fetched.
EXACT = 'usepoms="false" useMavenMetadata="false" checksums=""'
RESOLVING = 'checksums=""'
FILE = "[artifact]-[revision](-[classifier]).[ext]"
SETTINGS = """<ivysettings>
  <settings defaultResolver="maven"/>
  <resolvers><ibiblio name="maven" m2compatible="true" {how}/></resolvers>
</ivysettings>
"""
MODULE = """<ivy-module version="2.0" xmlns:m="http://ant.apache.org/ivy/maven">
  <info organisation="tidemark" module="jars"/>
  <configurations><conf name="default"/></configurations>
  <dependencies>
{dependencies}
  </dependencies>
</ivy-module>
"""


def pyspark_jars() -> Path:
    """Return the folder of jars that pyspark brings.

    Raises:
        TidemarkError: NO_PACKAGES, where pyspark is not installed.
    """
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise TidemarkError("NO_PACKAGES", "pyspark is not installed", "run `local/tidemark setup`")
    return Path(spec.origin).parent / "jars"


def retrieve(
    coordinates: Sequence[str],
    pattern: str,
    *,
    transitive: bool = False,
    exclude: Sequence[str] = (),
    on_jar: Callable[[str], None] = lambda module: None,
) -> None:
    """Bring `coordinates` to the files that `pattern` names, in Ivy's pattern language.

    Args:
        coordinates: `group:artifact:version`, or with `:classifier:extension` where it is no plain jar.
        transitive: read poms and bring all that they need too, but for `exclude` (`group:artifact`).
        on_jar: called with `group#artifact;version` for each jar that was downloaded.

    Raises:
        TidemarkError: JAR_DOWNLOAD, with the first line that Ivy complains in and the path of its log.
    """
    folder = state_dir() / "ivy"
    folder.mkdir(parents=True, exist_ok=True)
    module = folder / "ivy.xml"
    module.write_text(_module(coordinates, transitive, exclude))
    log = state_dir() / "logs" / "ivy.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    ivy = next(pyspark_jars().glob("ivy-*.jar"))
    command = [java(), "-cp", str(ivy), "org.apache.ivy.Main", "-settings", str(_settings(folder, transitive))]
    command += [
        "-cache",
        str(folder / "cache"),
        "-ivy",
        str(module),
        "-retrieve",
        pattern,
        "-types",
        "jar",
        "bundle",
        "tar.gz",
    ]
    with log.open("w") as lines, output_of(command) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.write(line)
            if "[SUCCESSFUL ]" in line:
                on_jar(line.split("[SUCCESSFUL ]")[1].split("!")[0].strip())
    if process.returncode != 0:
        raise _explain(log)


def forget(group: str, artifact: str) -> None:
    """Drop what the cache holds of a module, so that it is downloaded anew."""
    shutil.rmtree(state_dir() / "ivy" / "cache" / group / artifact, ignore_errors=True)


def clear_cache() -> None:
    """Drop the whole cache; it only serves to go on after an interruption."""
    shutil.rmtree(state_dir() / "ivy" / "cache", ignore_errors=True)


def _settings(folder: Path, transitive: bool) -> Path:
    users = os.environ.get("TIDEMARK_IVY_SETTINGS")
    home_folder = home()
    path = home_folder / ".ivy2" / "ivysettings.xml" if home_folder else None
    if users:
        path = Path(users).expanduser() if home_folder else Path(users)
        if not path.is_file():
            raise TidemarkError("BAD_SETTING", f"TIDEMARK_IVY_SETTINGS names no file: {users}", "correct or unset it")
    if path and path.is_file():
        return path
    ours = folder / "ivysettings.xml"
    ours.write_text(SETTINGS.format(how=RESOLVING if transitive else EXACT))
    return ours


def _module(coordinates: Sequence[str], transitive: bool, exclude: Sequence[str]) -> str:
    lines = []
    for coordinate in coordinates:
        group, artifact, version, *other = map(quoteattr, coordinate.split(":"))
        flag = str(transitive).lower()
        rest = f'conf="default->default" transitive="{flag}"'
        file = f"<artifact name={artifact} m:classifier={other[0]} type={other[1]} ext={other[1]}/>" if other else ""
        lines.append(f"    <dependency org={group} name={artifact} rev={version} {rest}>{file}</dependency>")
    for pair in exclude:
        group, artifact = map(quoteattr, pair.split(":"))
        lines.append(f"    <exclude org={group} module={artifact}/>")
    return MODULE.format(dependencies="\n".join(lines))


def _explain(log: Path) -> TidemarkError:
    lines = log.read_text().splitlines()
    complaints = [line.strip(" \t:") for line in lines if "not found" in line or "[FAILED" in line or "ERROR" in line]
    cause = complaints[0] if complaints else (lines or ["Ivy said nothing"])[-1].strip()
    remedy = f"check the network or your ivysettings.xml and run the same command again; Ivy's log: {log}"
    return TidemarkError("JAR_DOWNLOAD", cause, remedy)
