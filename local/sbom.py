"""Runs `local/tidemark sbom`: what is installed, each with version, hash and licence, as CycloneDX, the field's format.

Packages are those of conf/requirements.lock, jars those of conf/jars.lock for the driver and the embedded broker, and
those that pyspark brings. A licence is what a package or jar says of itself; where it says nothing, none is given.
"""

import argparse
import re
import sys
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.dependency import Dependency
from cyclonedx.model.license import LicenseAcknowledgement
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from conf import code_version, command_line
from conf.errors import TidemarkError
from local import jars
from local.doctor import locked_packages

OWN_LICENCE = "Apache-2.0"
SET = "tidemark:set"  # packages, spark, broker or pyspark
# What packages and jars call a licence, and its SPDX identifier; the first that fits. Other texts are kept as they are.
SPDX = (
    (r"apache.*2|^Apache$|^ASL 2", "Apache-2.0"),
    (r"^(the )?(new|revised|modified|3-clause) bsd|bsd[- ](new|3)|^BSD 3", "BSD-3-Clause"),
    (r"2-clause|simplified bsd", "BSD-2-Clause"),
    (r"\bmit\b", "MIT"),
    (r"^CC0", "CC0-1.0"),
    (r"eclipse distribution license|EDL 1", "BSD-3-Clause"),
    (r"GPL.*classpath", "GPL-2.0-only WITH Classpath-exception-2.0"),
    (r"(EPL|eclipse public).*2\.0", "EPL-2.0"),
    (r"mozilla.*2\.0|^MPL 2", "MPL-2.0"),
)


def main(argv: Sequence[str]) -> int:
    """Write what is installed, with versions, hashes and licences, to a file or to stdout."""
    parser = argparse.ArgumentParser(prog="local/tidemark sbom", description=main.__doc__)
    parser.add_argument("--output", type=Path, metavar="FILE", help="where it is written; default: stdout")
    parser.add_argument(
        "--licences", action="store_true", help="a line for each licence, with what has it, in place of it"
    )
    options = command_line.parse(parser, argv)
    found = list(components())
    text = licence_lines(found) if options.licences else document(found)
    if options.output is None:
        print(text)
        return 0
    try:
        options.output.write_text(text + "\n")
    except OSError as exc:
        raise TidemarkError("BAD_ARGUMENTS", f"--output {options.output}: {exc.strerror}", "name another file") from exc
    unnamed = sum(not component.licenses for component in found)
    print(f"{options.output}: {len(found)} components, {unnamed} of which name no licence", file=sys.stderr)
    return 0


def document(found: Sequence[Component]) -> str:
    """Return CycloneDX 1.6 as JSON; the same components have the same serial number."""
    own = Component(
        name="tidemark",
        version=code_version.version(),
        type=ComponentType.APPLICATION,
        licenses=[_licence(OWN_LICENCE)],
    )
    names = "\n".join(sorted(str(component.bom_ref) for component in found))
    bom = Bom(components=found, serial_number=uuid.uuid5(uuid.NAMESPACE_URL, names))
    bom.metadata.component = own
    bom.dependencies.add(Dependency(own.bom_ref, (Dependency(component.bom_ref) for component in found)))
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2)


def licence_lines(found: Sequence[Component]) -> str:
    """Return each licence with how many have it, and their names; those that name none at the end."""
    having: dict[str, list[str]] = {}
    for component in found:
        texts = [str(getattr(one, "value", None) or getattr(one, "id", None) or one.name) for one in component.licenses]
        having.setdefault(" AND ".join(texts) or "(none named)", []).append(component.name)
    rows = sorted(having.items(), key=lambda row: (row[0] == "(none named)", -len(row[1]), row[0]))
    return "\n".join(f"{licence}: {len(names)}: {', '.join(sorted(names))}" for licence, names in rows)


def components() -> Iterator[Component]:
    """Yield every package and jar, once; raises TidemarkError NO_JARS, where a locked jar is not there; NO_PACKAGES."""
    for name, version in locked_packages().items():
        yield _component("packages", PackageURL("pypi", None, name, version), licence=_of_package(name))
    for jar_set in jars.SETS:
        jars.class_path(jar_set)
        for jar in jars.read_lock(jar_set):
            group, artifact, version = jar.coordinate.split(":")[:3]
            path = jars.folder(jar_set) / jar.file
            url = PackageURL("maven", group, artifact, version)
            yield _component(jar_set, url, jar.sha256, _of_jar(path))
    for path in sorted(jars.spark_jars().glob("*.jar")):
        in_group, artifact, version = _coordinate(path)
        url = PackageURL("maven", in_group, artifact, version)
        yield _component("pyspark", url, jars.sha256(path), _of_jar(path))


def _component(of_set: str, url: PackageURL, digest: str = "", licence: str = "") -> Component:
    """Return one package or jar; the sets that share no class path may hold the same."""
    return Component(
        name=url.name,
        version=url.version,
        type=ComponentType.LIBRARY,
        purl=url,
        bom_ref=f"{of_set}:{url}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)] if digest else [],
        licenses=[_licence(licence)] if licence else [],
        properties=[Property(name=SET, value=of_set)],
    )


def _licence(text: str):  # type: ignore[no-untyped-def]  # a union that the library does not name
    return LicenseFactory().make_from_string(text, license_acknowledgement=LicenseAcknowledgement.DECLARED)


def spdx(text: str) -> str:
    """Return the SPDX identifier for what a package calls its licence; the text where it is none of SPDX."""
    line = " ".join(text.split())
    return next((identifier for pattern, identifier in SPDX if re.search(pattern, line, re.IGNORECASE)), line)


def _of_package(name: str) -> str:
    try:
        says: PackageMetadata = metadata(name)
    except PackageNotFoundError as exc:
        raise TidemarkError("NO_PACKAGES", f"{name} is locked and not installed", "run `local/tidemark setup`") from exc
    fields = says.json
    if expression := fields.get("license_expression"):
        return str(expression)
    named = [each.rpartition(" :: ")[2] for each in fields.get("classifier", []) if each.startswith("License ::")]
    text = str(fields.get("license", ""))
    # Some put the whole text there.
    return spdx(text if text and "\n" not in text else " AND ".join(named)) if text or named else ""


def _of_jar(path: Path) -> str:
    """Take what the manifest, the pom or the licence file in a jar says, whichever says something first."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()

        def read(name: str) -> str:
            return archive.read(name).decode(errors="replace")

        if "META-INF/MANIFEST.MF" in names:
            manifest = re.sub(r"\r?\n ", "", read("META-INF/MANIFEST.MF"))
            if said := re.search(r"^Bundle-License: *(.+?)\s*$", manifest, re.MULTILINE):
                return spdx(said[1])
        poms = [name for name in names if re.fullmatch(r"META-INF/maven/.*/pom\.xml", name)]
        if len(poms) == 1 and (said := re.search(r"<license>.*?<name>(.*?)</name>", read(poms[0]), re.DOTALL)):
            return spdx(said[1])
        texts = [name for name in names if re.fullmatch(r"(META-INF/)?LICENSE(\.txt|\.md)?", name, re.IGNORECASE)]
        return "Apache-2.0" if texts and "Apache License" in read(texts[0])[:400] else ""


def _coordinate(path: Path) -> tuple[str | None, str, str]:
    """Return group, artifact and version of a jar that no lock names: from its pom, else from its file's name."""
    named = re.fullmatch(r"(.+?)-(\d[\w.+-]*)\.jar", path.name)
    artifact, version = (named[1], named[2]) if named else (path.stem, "")
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(f"/{artifact}/pom.properties"):
                return name.split("/")[2], artifact, version
    return None, artifact, version
