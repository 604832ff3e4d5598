"""An endpoint that answers whoever has a token of the issuer's for the audience, with the scope to read jobs."""

from __future__ import annotations

import os
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

app = FastAPI(openapi_url=None)
keys = jwt.PyJWKClient(os.environ["JWKS_URL"], cache_keys=True)


async def claims(bearer: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> dict[str, Any]:
    """Those of a request's token, once its signature, issuer, audience and times are known to be good."""
    try:
        key = keys.get_signing_key_from_jwt(bearer.credentials)
        verified = jwt.decode(
            bearer.credentials,
            key,
            algorithms=["RS256"],
            audience=os.environ["AUDIENCE"],
            issuer=os.environ["ISSUER"],
            options={"require": ["exp", "iss", "aud"]},
        )
    except jwt.PyJWTError as error:
        raise HTTPException(401, "invalid_token") from error
    if "converter:job.read" not in verified["scope"].split():
        raise HTTPException(403, "insufficient_scope")
    return verified


@app.get("/")
async def status(verified: Annotated[dict[str, Any], Depends(claims)]) -> dict[str, str]:
    """The least that is JSON and knows who asks."""
    return {"status": "ok", "client_id": verified["client_id"]}
