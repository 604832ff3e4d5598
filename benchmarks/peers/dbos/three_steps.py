"""DBOS: a workflow of three steps, each step's result stored in Postgres before the next begins.

The workflows run in a process of their own, as the guide has them run in a web server: the client asks over a socket,
and the answer comes when the workflow has ended. That is quicker than DBOS's queues, which poll the database.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from dbos import DBOS, DBOSConfig
from pipeline import answer, asked

STEPS = ("onnx", "bie", "nef")


@DBOS.step()
async def nothing(_step: str) -> None:
    """Be one of the three."""


@DBOS.workflow()
async def pipeline() -> None:
    """Be a job."""
    for step in STEPS:
        await nothing(step)


async def work(listening: str, url: str) -> None:
    """Run a workflow for each line, until killed."""
    config: DBOSConfig = {
        "name": "pipeline",
        "system_database_url": url,
        "sys_db_pool_size": 20,
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            handle = await DBOS.start_workflow_async(pipeline)
            await handle.get_result()
            writer.write(b"done\n")

    async with await asyncio.start_unix_server(serve, listening) as server:
        await server.serve_forever()


async def ask() -> None:
    """Start the workers and answer."""
    load, url = asked()
    with tempfile.TemporaryDirectory() as directory:
        listening = Path(directory) / "worker"
        worker = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", sys.executable, __file__, str(listening), url), stdout=sys.stderr
        )
        free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        while not listening.exists():
            if worker.returncode is not None:
                sys.exit("the worker has ended")
            await asyncio.sleep(0.05)

        async def job() -> None:
            connection = free.pop() if free else await asyncio.open_unix_connection(listening)
            connection[1].write(b"job\n")
            await connection[0].readexactly(len(b"done\n"))
            free.append(connection)

        await answer(job, load)
        worker.kill()
        await worker.wait()


if __name__ == "__main__":
    asyncio.run(ask() if sys.argv[1].startswith("--") else work(*sys.argv[1:]))
