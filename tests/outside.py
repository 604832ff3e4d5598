"""What every deployment is told of the company's own servers."""

OUTSIDE = {
    "MEMBER_CENTER_ISSUER": "https://issuer",
    "MEMBER_CENTER_JWKS_URL": "https://issuer/jwks",
    "MEMBER_CENTER_TOKEN_URL": "https://issuer/token",
    "KNERON_CONVERTER_AUDIENCE": "converter",
    "KNERON_CONVERTER_CLIENT_ID": "converter",
    "FILE_ACCESS_AGENT_BASE_URL": "https://files",
    "FILE_ACCESS_AGENT_AUDIENCE": "files",
}
