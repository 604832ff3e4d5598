"""A client of the Kneron Model Converter's HTTP API, blocking (`Client`) and on an event loop (`AsyncClient`).

    from pathlib import Path
    from converter.client import Client, ClientCredentials, Order

    with Client(gateway_url, ClientCredentials(token_url=…, client_id=…, client_secret=…)) as client:
        job = client.submit(Order(model=Path("model.onnx"), user_id="alice", platform="720", model_id=40001))
        client.wait(job.job_id)
        client.download(job.job_id, Path("."))

`converter.client.errors` lists what can go wrong, `converter.client.resources` what there is to know.
"""

from converter.client.clients import AsyncClient, Client
from converter.client.errors import ConverterError
from converter.client.resources import Order
from converter.client.tokens import Bearer, ClientCredentials

__all__ = ["AsyncClient", "Bearer", "Client", "ClientCredentials", "ConverterError", "Order"]
