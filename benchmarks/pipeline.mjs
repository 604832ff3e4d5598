// The protocol of pipeline.py for programs of Node: what the command line asks, and the lines that answer it.
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";

const WARM_UP_JOBS = 50;

export function asked() {
  const names = ["jobs", "at-once", "alone", "server", "quiet"];
  const options = Object.fromEntries(names.map((name) => [name, { type: "string" }]));
  const { values } = parseArgs({ options });
  return {
    jobs: Number(values.jobs),
    atOnce: Number(values["at-once"]),
    alone: Number(values.alone),
    server: values.server,
    quietS: values.quiet && Number(values.quiet),
  };
}

// `job` hands one in and resolves when its third step is known to be done; `waitsMs` empties and returns what each hop
// of the jobs so far has waited.
export async function answer(job, load, waitsMs) {
  for (let number = 0; number < WARM_UP_JOBS; number++) await job();
  if (load.quietS !== undefined) {
    waitsMs();
    for (let number = 0; number < load.alone; number++) {
      await delay(load.quietS * 1000);
      await job();
    }
    const waited = ascending(waitsMs());
    console.log(JSON.stringify({ "pick-up p50 ms": percentile(waited, 0.5), "pick-up max ms": waited.at(-1) }));
    return;
  }
  console.log("busy");
  const jobsPerS = await rate(job, load);
  console.log("idle");
  const took = await latenciesMs(job, load);
  console.log(
    JSON.stringify({ "jobs/s": jobsPerS, "p50 ms": percentile(took, 0.5), "p99 ms": percentile(took, 0.99) }),
  );
}

async function rate(job, { jobs, atOnce }) {
  let left = jobs;
  const began = performance.now();
  const oneAfterTheOther = async () => {
    while (left-- > 0) await job();
  };
  await Promise.all(Array.from({ length: atOnce }, oneAfterTheOther));
  return jobs / ((performance.now() - began) / 1000);
}

async function latenciesMs(job, { alone }) {
  const took = [];
  for (let number = 0; number < alone; number++) {
    const began = performance.now();
    await job();
    took.push(performance.now() - began);
  }
  return ascending(took);
}

const ascending = (values) => values.sort((a, b) => a - b);

// The smallest of the values that `share` of them do not exceed.
const percentile = (values, share) => values[Math.max(0, Math.ceil(share * values.length) - 1)];
