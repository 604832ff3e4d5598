"""What the chart renders is what Kubernetes takes, and what the services themselves accept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gotpl.errors
import jsonschema_rs
import kubernetes_validate
import pytest
import yaml
from env_example import SETTINGS
from gotpl.exts.helm import HelmTemplateEngine
from outside import OUTSIDE

from converter.common.access import ACCOUNT, PROVISIONER, SERVICES
from converter.common.settings import ServiceSettings, describe, load
from converter.common.topology import EVENTS
from converter.devstack.services import SERVICES as PROGRAMS
from converter.gateway.settings import GatewaySettings

CHART = Path(__file__).parents[2] / "deploy" / "helm"
KUBERNETES = "1.31"

Object = dict[str, Any]


def values(**changed: object) -> Object:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    return defaults | {"config": defaults["config"] | OUTSIDE} | changed


def rendered(given: Object) -> list[Object]:
    """The objects that `helm template` would print."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    sources = {path.name: path.read_text() for path in sorted((CHART / "templates").iterdir())}
    engine = HelmTemplateEngine(sources)
    context = {
        "Values": given,
        "Release": {"Name": "kmc", "Namespace": "converter", "Service": "Helm"},
        "Chart": {name[0].upper() + name[1:]: value for name, value in chart.items()},
    }
    texts = engine.render(dict.fromkeys((name for name in sources if name.endswith(".yaml")), context))
    documents = [document for text in texts.values() for document in yaml.safe_load_all(text)]
    return [document for document in documents if document]


@pytest.fixture(scope="module")
def objects() -> list[Object]:
    return rendered(values())


def of_kind(objects: list[Object], kind: str) -> dict[str, Object]:
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def variables_of(workload: Object, config: Object) -> dict[str, str]:
    """What a container of `workload` finds in its environment."""
    [container] = workload["spec"]["template"]["spec"]["containers"]
    return {name: str(value) for name, value in config["data"].items()} | {
        one["name"]: str(one["value"]) for one in container.get("env", [])
    }


def workloads(objects: list[Object]) -> dict[str, Object]:
    return of_kind(objects, "Deployment") | of_kind(objects, "Job")


def settings_of(component: str) -> type[ServiceSettings]:
    [found] = [settings for services, settings in SETTINGS.items() if component in services.split(", ")]
    return found


def test_kubernetes_takes_every_object(objects: list[Object]):
    for each in objects:
        if each["apiVersion"].startswith("keda.sh/"):
            continue
        kubernetes_validate.validate(each, KUBERNETES, strict=True)


def test_a_mistyped_field_would_be_found(objects: list[Object]):
    [gateway] = [each for each in objects if each["kind"] == "Deployment" and "gateway" in each["metadata"]["name"]]
    broken = gateway | {"spec": gateway["spec"] | {"replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


def test_every_service_starts_with_the_environment_that_it_is_given(objects: list[Object], tmp_path: Path):
    config = of_kind(objects, "ConfigMap")["kmc-config"]
    components = set()
    for workload in workloads(objects).values():
        component = workload["metadata"]["labels"]["app.kubernetes.io/component"]
        components.add(component)
        environ = variables_of(workload, config)
        for name in [name for name in environ if name.endswith("_FILE") and name != "NATS_NKEY_SEED_FILE"]:
            secret = tmp_path / name
            secret.write_text("x" * 64)
            environ[name] = str(secret)
        settings = load(settings_of(component), environ)
        assert settings.environment == "production"
    assert components == {"provision", *(service.name for service in PROGRAMS)}


def test_a_secret_goes_only_to_the_service_that_reads_it(objects: list[Object]):
    for workload in workloads(objects).values():
        component = workload["metadata"]["labels"]["app.kubernetes.io/component"]
        pod = workload["spec"]["template"]["spec"]
        mounted = {item["key"] for volume in pod["volumes"] if "secret" in volume for item in volume["secret"]["items"]}
        read = {variable.variable for variable in describe(settings_of(component)) if variable.secret}
        user = PROVISIONER if component == "provision" else component
        assert user in SERVICES
        assert mounted <= read | {f"{user}.seed"}
        assert f"{user}.seed" in mounted


def test_no_pod_has_privileges_or_a_file_system_to_write_to(objects: list[Object]):
    for workload in workloads(objects).values():
        pod = workload["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


def test_pods_are_given_longer_than_their_drain(objects: list[Object]):
    for workload in of_kind(objects, "Deployment").values():
        assert workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 60
    drain_s = {variable.variable: variable.default for variable in describe(GatewaySettings)}["SHUTDOWN_GRACE_SECONDS"]
    gateway = of_kind(objects, "Deployment")["kmc-api-gateway"]
    assert gateway["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > int(drain_s or 0) + 30


def test_each_worker_scales_with_the_lag_of_its_own_consumer(objects: list[Object]):
    scaled = of_kind(objects, "ScaledObject")
    assert scaled.keys() == {f"kmc-{service.name}" for service in PROGRAMS if service.name != "api-gateway"}
    for name, each in scaled.items():
        assert each["spec"]["scaleTargetRef"] == {"name": name}
        [trigger] = each["spec"]["triggers"]
        assert trigger["type"] == "nats-jetstream"
        assert trigger["metadata"] == {
            "natsServerMonitoringEndpoint": "nats:8222",
            "account": ACCOUNT,
            "stream": EVENTS,
            "consumer": name.removeprefix("kmc-"),
            "lagThreshold": "1",
        }
        assert "replicas" not in of_kind(objects, "Deployment")[name]["spec"]  # or every upgrade would reset it


def test_without_keda_the_least_number_of_workers_runs():
    objects = rendered(values(autoscaling={"enabled": False}))
    assert not of_kind(objects, "ScaledObject")
    assert of_kind(objects, "Deployment")["kmc-stage-bie"]["spec"]["replicas"] == 1


def test_the_internal_face_is_reached_by_nobody_who_is_not_named(objects: list[Object]):
    policies = of_kind(objects, "NetworkPolicy")
    assert policies["kmc-all"]["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policies["kmc-all"]["spec"]
    ports = [rule["ports"][0]["port"] for rule in policies["kmc-gateway"]["spec"]["ingress"]]
    assert ports == ["public", "internal"]
    [internal] = [rule for rule in policies["kmc-gateway"]["spec"]["ingress"] if rule["ports"][0]["port"] == "internal"]
    assert internal["from"] == values()["networkPolicy"]["metricsFrom"]


def test_a_missing_address_is_named():
    given = values()
    with pytest.raises(gotpl.errors.TemplateError, match=r"config\.MEMBER_CENTER_ISSUER is needed"):
        rendered(given | {"config": given["config"] | {"MEMBER_CENTER_ISSUER": ""}})


def test_the_values_keep_their_schema_and_a_mistyped_one_does_not():
    schema = jsonschema_rs.Draft202012Validator(yaml.safe_load((CHART / "values.schema.json").read_text()))
    schema.validate(values())
    with pytest.raises(jsonschema_rs.ValidationError):
        schema.validate(values(gatway={"replicas": 3}))
