"""What keeps a gateway from starting is one line that names it."""

from __future__ import annotations

import pytest

from converter.devstack.loopback import free_ports, origin

from .conftest import GatewayProcess, StartGateway

NOWHERE = free_ports(1)[0]


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"NATS_URL": f"nats://127.0.0.1:{NOWHERE}"}, rf"NATS.*127\.0\.0\.1:{NOWHERE}"),
        (
            {
                "STORAGE_BACKEND": "minio",
                "MINIO_ENDPOINT_URL": origin(NOWHERE),
                "MINIO_BUCKET": "b",
                "MINIO_ACCESS_KEY": "a",
                "MINIO_SECRET_KEY": "s",
            },
            rf"object storage.*127\.0\.0\.1:{NOWHERE}",
        ),
        ({"MEMBER_CENTER_JWKS_URL": f"{origin(NOWHERE)}/jwks"}, rf"the issuer.*127\.0\.0\.1:{NOWHERE}"),
        ({"ARTIFACT_TTL_DAYS": "30"}, r"ARTIFACT_TTL_DAYS.*kept for 10 days.*EVENTS_RETENTION_DAYS=33"),
    ],
    ids=["nats", "storage", "issuer", "retention"],
)
async def test_it_ends_and_says_what_is_missing(start_gateway: StartGateway, variables: dict[str, str], line: str):
    with pytest.raises(AssertionError, match=line) as ended:
        await start_gateway(**variables)
    assert "Traceback" not in str(ended.value)


async def test_a_port_that_is_taken_is_named(start_gateway: StartGateway, gateway: GatewayProcess):
    with pytest.raises(AssertionError, match=f"an address to listen on.*127.0.0.1:{gateway.port}") as ended:
        await start_gateway(PORT=str(gateway.port))
    assert "Traceback" not in str(ended.value)
