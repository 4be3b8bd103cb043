"""Write a CycloneDX bill of materials of Bandscope, and print the licences of its parts.

    python -m scripts.sbom [--to FILE]

The packages are those of this environment that the product needs, also with PostgreSQL, Ray and Kubernetes, but not
those for its tests. The models are those of ``models/inventory.toml``, each file with its SHA-256; a model of ours also
has the packages that it was trained on. The tool that lists packages runs in an environment of its own, so it does not
list itself. To find packages with known vulnerabilities,
run ``uvx pip-audit -r constraints.txt --no-deps``, which uses a service on the internet.
"""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from importlib.metadata import requires
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bandscope_dagster.models.inventory import (
    UNKNOWN,
    HubSource,
    Model,
    PackageSource,
    ReleaseSource,
    TrainedSource,
    find_model,
    load_inventory,
)
from training.sources import Package, read_manifest

ROOT: Final = Path(__file__).parent.parent
EXTRAS: Final = ("", "postgres", "ray", "k8s")  # of the product; the other extras are for its tests
COPYLEFT: Final = ("GPL", "MPL")  # also LGPL; check these before you ship a product


def tool(package: str, *command: str) -> list[str]:
    """A command line that runs a tool of a package, at its pinned version, in a separate environment."""
    runner = [sys.executable, "-m", "uv", "tool", "run", "--quiet", "--python", sys.executable]
    return [*runner, "--constraints", str(ROOT / "constraints.txt"), "--from", package, *command]


def packages() -> dict[str, Any]:
    """The bill of materials of the whole environment."""
    command = tool(
        "cyclonedx-bom", "cyclonedx-py", "environment", "--pyproject", str(ROOT / "pyproject.toml")
    )
    written = subprocess.run(
        # Not validated here: the models come to it, and the tests validate the whole.
        [*command, "--no-validate", "--mc-type", "application", "--output-format", "JSON", sys.executable],
        capture_output=True,
        check=True,
    )
    return json.loads(written.stdout)


def needed() -> set[str]:
    """The names of the packages that the product needs in this environment, directly or indirectly."""
    found: set[tuple[str, str]] = set()  # name and extra
    left = [("bandscope", extra) for extra in EXTRAS]
    while left:
        wanted = left.pop()
        if wanted in found:
            continue
        found.add(wanted)
        name, extra = wanted
        for requirement in map(Requirement, requires(name) or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                left += [(requirement.name, one) for one in ("", *requirement.extras)]
    return {canonicalize_name(name) for name, _ in found}


def version_of(model: Model) -> str:
    """The revision, release or version of a model's source."""
    match model.source:
        case HubSource(revision=version) | ReleaseSource(release=version) | PackageSource(version=version):
            return version
        case TrainedSource(version=version):
            return version


def model_component(model: Model) -> dict[str, Any]:
    """A model as a component, with its files."""
    source = model.source
    licences = [model.licence, *(part.licence for part in contained(model))]
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": f"model:{model.name}",
        "name": model.name,
        "version": version_of(model),
        "description": model.description,
        "licenses": [
            # CycloneDX has identifiers of SPDX only; other licences have a name.
            {"license": {"name" if licence == UNKNOWN else "id": licence}}
            for licence in dict.fromkeys(licences)
        ],
        "components": [
            {
                "type": "file",
                "bom-ref": f"model:{model.name}/{file.name}",
                "name": file.name,
                "hashes": [{"alg": "SHA-256", "content": file.sha256}],
            }
            for file in (each.published for each in model.files)
        ],
    }
    if isinstance(source, TrainedSource):
        data = [data_component(model, package) for package in read_manifest()]
        component["components"] += data
        component["modelCard"] = {
            "modelParameters": {"datasets": [{"ref": package["bom-ref"]} for package in data]}
        }
    else:
        component["externalReferences"] = [{"type": "website", "url": source.url}]
    return component


def data_component(model: Model, package: Package) -> dict[str, Any]:
    """A package whose sounds a model of ours was trained on. The sounds are not part of the weights."""
    return {
        "type": "data",
        "bom-ref": f"model:{model.name}/{package.name}",
        "name": package.name,
        "version": package.version,
        "description": package.what,
        "licenses": [{"license": {"name": package.licence}}],
        "hashes": [{"alg": "SHA-256", "content": package.sha256}],
    }


def contained(model: Model) -> list[Model]:
    """The models whose weights are part of this one's files."""
    source = model.source
    return [find_model(name) for name in source.contains] if isinstance(source, TrainedSource) else []


def bill_of_materials() -> dict[str, Any]:
    """The product's packages and models, as CycloneDX 1.6."""
    bill = packages()
    names = needed()
    parts = [part for part in bill["components"] if canonicalize_name(part["name"]) in names]
    inventory = load_inventory().values()
    models = [model_component(model) for model in inventory]
    bill["components"] = components = parts + models
    root = bill["metadata"]["component"]["bom-ref"]
    references = {component["bom-ref"] for component in components}
    uses = {part["ref"]: references.intersection(part.get("dependsOn", [])) for part in bill["dependencies"]}
    uses[root] |= {model["bom-ref"] for model in models}
    uses |= {
        f"model:{model.name}": {f"model:{part.name}" for part in contained(model)} for model in inventory
    }
    bill["dependencies"] = [
        {"ref": reference, "dependsOn": sorted(uses.get(reference, ()))} for reference in (root, *references)
    ]
    return bill


def licences(component: Mapping[str, Any]) -> list[str]:
    """The licence of a component as stated: SPDX identifiers and expressions, or the authors' text."""
    found = [
        stated.get("expression") or stated["license"].get("id") or stated["license"].get("name", "")
        for stated in component.get("licenses", [])
    ]
    return sorted({text.removeprefix("License :: OSI Approved :: ") for text in found}) or ["not stated"]


def main() -> None:
    """Write the bill of materials, and print the licences."""
    parser = argparse.ArgumentParser(description="Write a CycloneDX bill of materials of Bandscope.")
    parser.add_argument("--to", type=Path, default=Path("bandscope.cdx.json"), metavar="FILE")
    arguments = parser.parse_args()
    bill = bill_of_materials()
    arguments.to.write_text(json.dumps(bill, indent=2) + "\n")
    by_licence: dict[str, list[str]] = defaultdict(list)
    for component in bill["components"]:
        by_licence["; ".join(licences(component))].append(component["name"])
    for licence, names in sorted(by_licence.items()):
        mark = "*" if any(word in licence for word in COPYLEFT) else " "
        print(f"{mark} {licence}: {', '.join(sorted(names))}")
    print("\n* copyleft; some of these licences are a choice of the user")
    print(f"{arguments.to}: {len(bill['components'])} components")


if __name__ == "__main__":
    main()
