"""What the promoter reads from the environment."""

from __future__ import annotations

from converter.common.settings import (
    FileAccessAgentSettings,
    MonitoringSettings,
    NatsSettings,
    OAuthClientSettings,
    ServiceSettings,
    StorageSettings,
)


class PromoterSettings(ServiceSettings, frozen=True, kw_only=True):
    """The promoter's settings."""

    nats: NatsSettings
    storage: StorageSettings
    oauth: OAuthClientSettings
    file_access_agent: FileAccessAgentSettings
    monitoring: MonitoringSettings
