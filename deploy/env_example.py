"""Writes `env.example`: every variable of every service, from the Structs that read them. Run by `make generate`."""

from __future__ import annotations

import sys
from collections import defaultdict

from converter.common.environment import Variable
from converter.common.provision import ProvisionSettings
from converter.common.settings import ServiceSettings, describe
from converter.common.stage.entry import StageServiceSettings
from converter.gateway.settings import GatewaySettings
from converter.promoter.settings import PromoterSettings

SETTINGS: dict[str, type[ServiceSettings]] = {
    "api-gateway": GatewaySettings,
    "stage-onnx, stage-bie, stage-nef": StageServiceSettings,
    "promoter": PromoterSettings,
    "provision": ProvisionSettings,
}
HEAD = """\
# Every variable of every service. Those without a # are required; a value REPLACE-ME stops a production start.
# A secret may come from a file instead: NAME_FILE=/run/secrets/name.
"""


def env_example() -> str:
    """The file's text: variables grouped by the services that read them."""
    readers: dict[str, list[str]] = defaultdict(list)
    variables: dict[str, Variable] = {}
    for service, settings in SETTINGS.items():
        for variable in describe(settings):
            readers[variable.variable].append(service)
            variables[variable.variable] = variable
    groups: dict[tuple[str, ...], list[Variable]] = defaultdict(list)
    for name, services in readers.items():
        groups[tuple(services)].append(variables[name])
    everybody = tuple(SETTINGS)
    parts = [
        f"# --- {'every service' if services == everybody else '; '.join(services)}\n\n"
        + "\n".join(_entry(variable) for variable in group)
        for services, group in sorted(groups.items(), key=lambda item: -len(item[0]))
    ]
    return HEAD + "\n" + "\n".join(parts)


def _entry(variable: Variable) -> str:
    needed = f"required with {variable.needed_when}" if variable.needed_when else ""
    facts = (variable.description, variable.allowed, needed)
    comment = "; ".join(fact for fact in facts if fact and fact != "text")
    assignment = f"{variable.variable}={'REPLACE-ME' if variable.required else variable.default}"
    return f"# {comment}\n{'' if variable.required else '# '}{assignment}\n"


if __name__ == "__main__":
    sys.stdout.write(env_example())
