// Restate: a handler of three durable steps (`ctx.run`); the server stores each result before the next step begins. The
// handler is served over HTTP/2 by a process of its own; the client calls it through the ingress, which answers when it
// has ended.
import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { createEndpointHandler, service } from "@restatedev/restate-sdk";
import * as clients from "@restatedev/restate-sdk-clients";
import { createServer } from "node:http2";
import { answer, asked } from "../../pipeline.mjs";

const STEPS = ["onnx", "bie", "nef"];
const nothing = () => {};

const pipeline = service({
  name: "pipeline",
  handlers: {
    job: async (ctx) => {
      for (const step of STEPS) await ctx.run(step, nothing);
    },
  },
});

async function work() {
  const server = createServer(createEndpointHandler({ services: [pipeline] }));
  server.listen(0, "127.0.0.1", () => process.send(server.address().port));
  process.once("disconnect", () => process.exit());
}

async function ask() {
  const load = asked();
  const worker = fork(fileURLToPath(import.meta.url), process.argv.slice(2), {
    env: { ...process.env, WORK: "1", RESTATE_LOGGING: "ERROR" },
    stdio: ["ignore", 2, 2, "ipc"],
  });
  const [port] = await once(worker, "message");
  const { origin, searchParams } = new URL(load.server);
  const deployed = await fetch(`${searchParams.get("admin")}/deployments`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ uri: `http://127.0.0.1:${port}` }),
  });
  if (!deployed.ok) throw new Error(`the deployment was refused: ${await deployed.text()}`);
  const client = clients.connect({ url: origin }).serviceClient(pipeline);
  await answer(() => client.job(), load);
  worker.kill();
  process.exit();
}

await (process.env.WORK ? work() : ask());
