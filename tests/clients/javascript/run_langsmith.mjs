// The JavaScript client of LangSmith: tracing, reads, feedback, sharing, threads and projects.
//
// Environment: LANGSMITH_ENDPOINT, LANGSMITH_API_KEY, LANGSMITH_TRACING=true, PROJECT. Prints one JSON object.

import { webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

globalThis.crypto ??= webcrypto; // Node.js 18 keeps it in a module; the client looks for it here

// Its packages are not beside this file: NODE_HOME holds them.
const require = createRequire(pathToFileURL(`${process.env.NODE_HOME}/`));
const { Client, RunTree, uuid7 } = require("langsmith");
const { traceable } = require("langsmith/traceable");

const project = process.env.PROJECT;
const client = new Client();
const config = (name, rest = {}) => ({ name, client, project_name: project, ...rest });

const model = traceable(async (text) => ({
  text: text.toUpperCase(),
  usage_metadata: { input_tokens: 11, output_tokens: 3, total_tokens: 14, total_cost: 0.0017 },
}), config("model", { run_type: "llm" }));

const broken = traceable(async () => { throw new Error("no weather"); }, config("broken", { run_type: "tool" }));

const stream = traceable(async function* (n) {
  for (let each = 0; each < n; each += 1) yield `token${each} `;
}, config("stream", { aggregator: (tokens) => tokens.join("") }));

async function turn(number) {
  const id = uuid7();
  const metadata = { user_id: `u-${number}`, session_id: `${project}-thread`, case: project };
  const run = traceable(async (text) => {
    await Promise.all([model(text), model(`${text} again`)]);
    for await (const token of stream(3)) void token;
    try { await broken(); } catch { return "sorry"; }
  }, config("turn", { id, metadata, tags: [`tag${number}`] }));
  await run(`question ${number}`);
  return id;
}

// A tree made by hand, with an attachment, whose updates leave after its creates were sent.
async function late() {
  const metadata = { case: project };
  const tree = new RunTree({
    name: "late", run_type: "chain", inputs: { q: 1 }, project_name: project, client, metadata,
    attachments: { note: ["text/plain", new TextEncoder().encode("kept beside the run")] },
  });
  await tree.postRun();
  const child = tree.createChild({ name: "late_child", run_type: "tool", inputs: { n: 1 } });
  await child.postRun();
  await client.awaitPendingTraceBatches();
  await child.end({ n: 2 });
  await child.patchRun();
  await tree.end({ a: "late!" });
  await tree.patchRun();
  return tree.id;
}

async function all(iterable) {
  const found = [];
  for await (const each of iterable) found.push(each);
  return found;
}

async function fails(promise) {
  try { await promise; } catch { return true; }
  return false;
}

const ids = [await turn(0), await turn(1)];
const lateId = await late();
await client.flush();
await client.awaitPendingTraceBatches();

const names = (runs) => runs.map((run) => run.name).sort();
const listed = async (query) => names(await all(client.listRuns({ projectName: project, ...query })));
const run = await client.readRun(ids[0], { loadChildRuns: true });
const runs = {
  all: (await listed({})).length,
  errors: await listed({ error: true }),
  by_metadata: await listed({ filter: 'and(eq(metadata_key, "user_id"), eq(metadata_value, "u-1"))', isRoot: true }),
  by_tree: await listed({ isRoot: true, treeFilter: 'eq(name, "late_child")' }),
  read: [run.name, run.run_type, run.status, run.inputs, run.outputs, run.tags],
  children: names(run.child_runs),
  unknown: await fails(client.readRun(uuid7())),
  stats: (await client.getRunStats({ projectNames: [project] })).run_count,
};

const first = await client.createFeedback(ids[0], "helpful", { score: 0.5, comment: "meh" });
await client.updateFeedback(first.id, { score: 0.9 });
const doomed = await client.createFeedback(ids[1], "doomed", { score: 0 });
await client.deleteFeedback(doomed.id);
const feedback = (await all(client.listFeedback({ runIds: ids }))).map((each) => [each.id, each.key, each.score]);

const link = await client.shareRun(ids[0]);
const token = link.replace(/\/$/, "").split("/").at(-2);
// Not listSharedRuns: this release forgets the "?" of its address.
const shared = names((await client.public.runs.query(token, { selects: ["ID", "NAME"] })).items);
await client.unshareRun(ids[0]);
const sharing = { token, shared, still: (await client.readRunSharedLink(ids[0])) ?? null };

const turns = (await all(client.readThread({ threadId: `${project}-thread`, projectName: project }))).map((each) => each.inputs);
const threads = (await client.listThreads({ projectName: project })).map((each) => [each.thread_id, each.count]);

const made = await client.createProject({ projectName: `${project}-made`, description: "a project" });
const projects = {
  conflict: await fails(client.createProject({ projectName: `${project}-made` })),
  has: await client.hasProject({ projectName: `${project}-made` }),
  read: (await client.readProject({ projectId: made.id })).description,
};
await client.deleteProject({ projectName: `${project}-made` });
projects.deleted = !(await client.hasProject({ projectName: `${project}-made` }));

const { id: projectId } = await client.readProject({ projectName: project });
const second = {
  runs: (await all(client.runs.query({ project_ids: [projectId], selects: ["ID", "NAME"], page_size: 3 }))).length,
  traces: (await all(client.traces.query({ project_id: projectId }))).length,
  threads: (await all(client.threads.query({ project_id: projectId }))).map((each) => [each.thread_id, each.count]),
};
const { version } = JSON.parse(readFileSync(`${process.env.NODE_HOME}/node_modules/langsmith/package.json`, "utf8"));

console.log(JSON.stringify({ version, ids, late: lateId, runs, feedback, doomed: doomed.id, sharing, turns, threads, projects, second }));
