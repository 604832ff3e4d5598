// BullMQ: a queue for each step, whose end adds the job of the next queue. That takes less CPU than a flow of parents and
// children (`FlowProducer`) and does more jobs a second. Workers take as many jobs at once as the guide to concurrency
// advises where work waits; a second process of them does not do more on two cores, for Redis has one. The client hears
// of the end by `QueueEvents`. (package.json holds msgpackr-extract back: not every platform of its next version is to be
// had, and `npm ci` asks for all of them.)
import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { Queue, QueueEvents, Worker } from "bullmq";
import { answer, asked } from "../../pipeline.mjs";

const STEPS = ["onnx", "bie", "nef"];
const CONCURRENCY = 100;

const load = asked();
const connection = { url: load.server, maxRetriesPerRequest: null };
const queue = (name) => new Queue(name, { connection, defaultJobOptions: { removeOnComplete: true } });

// On the clock of the machine, which the client's process and the workers' share.
const nowMs = () => Number(process.hrtime.bigint()) / 1e6;

async function work() {
  const next = STEPS.slice(1).map(queue);
  const workers = STEPS.map((name, step) => {
    const handOn = async ({ data }) => {
      const waitsMs = [...data.waitsMs, nowMs() - data.endedMs];
      if (step === next.length) return { number: data.number, waitsMs };
      await next[step].add(name, { ...data, waitsMs, endedMs: nowMs() });
    };
    return new Worker(name, handOn, { connection, concurrency: CONCURRENCY });
  });
  await Promise.all(workers.map((worker) => worker.waitUntilReady()));
  process.send("ready");
  process.once("disconnect", () => process.exit());
}

async function ask() {
  const workers = fork(fileURLToPath(import.meta.url), process.argv.slice(2), {
    env: { ...process.env, WORK: "1" },
    stdio: ["ignore", 2, 2, "ipc"],
  });
  await once(workers, "message");
  const first = queue(STEPS[0]);
  const events = new QueueEvents(STEPS.at(-1), { connection });
  await Promise.all([first.waitUntilReady(), events.waitUntilReady()]);

  const ended = new Map();
  let waitsMs = [];
  events.on("completed", ({ returnvalue }) => {
    waitsMs.push(...returnvalue.waitsMs);
    ended.get(returnvalue.number)();
    ended.delete(returnvalue.number);
  });
  let number = 0;
  const job = async () => {
    const mine = number++;
    const end = new Promise((resolve) => ended.set(mine, resolve));
    await first.add(STEPS[0], { number: mine, waitsMs: [], endedMs: nowMs() });
    await end;
  };
  await answer(job, load, () => waitsMs.splice(0));
  workers.kill();
  process.exit();
}

await (process.env.WORK ? work() : ask());
